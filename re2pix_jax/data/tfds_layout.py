"""ArrayRecord shards and the files by which tensorflow-datasets knows them.

A module of its own, because importing tensorflow-datasets takes half a second. Its builders keep a
split in memory, or need TensorFlow to put it elsewhere, and begin from nothing after an
interruption; so the shards are written here, by its own serialisation, and described by its own
files.
"""

import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_info, example_serializer, file_adapters
from tensorflow_datasets.core import splits as tfds_splits

NAME = 'driving_clips'


def write_shard(
    path: str | os.PathLike, rows: Iterable[dict[str, bytes]], fields: Sequence[str]
) -> int:
    """Writes records, dicts field → bytes, to an ArrayRecord file. Returns their bytes.

    Each record is a group of its own, so that reading one decodes no others, and is not compressed
    once more: images are.
    """
    features = _features(fields)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
    size = 0
    try:
        for row in rows:
            example = serializer.get_tf_example(features.encode_example(row))
            # Otherwise protocol buffers order the fields as each process likes.
            record = example.SerializeToString(deterministic=True)
            writer.write(record)
            size += len(record)
    finally:
        writer.close()
    return size


def describe(
    folder: str | os.PathLike, splits: dict[str, list[tuple[int, int]]], fields: Sequence[str]
) -> dict[str, list[str]]:
    """Writes the description of the files of records that lie, or will lie, in a folder.

    Args:
        folder: to write it to.
        splits: name → list of (number of records, bytes) of its files, in order.
        fields: names of what a record holds.

    Returns:
        split → the names that its files must have.
    """
    folder = pathlib.Path(folder)
    identity = dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version('1.0.0'), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=_features(fields),
        disable_shuffling=True,
        description=f'Driving clips, a record a frame: {", ".join(fields)}.',
    )
    infos, names = [], {}
    for split, shards in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=NAME,
            split=split,
            filetype_suffix=file_adapters.FileFormat.ARRAY_RECORD.file_suffix,
        )
        names[split] = [
            template.sharded_filepath(shard_index=number, num_shards=len(shards)).name
            for number in range(len(shards))
        ]
        infos.append(
            tfds_splits.SplitInfo(
                name=split,
                shard_lengths=[count for count, _ in shards],
                num_bytes=sum(size for _, size in shards),
                filename_template=template,
            )
        )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    info.set_splits(tfds_splits.SplitDict(infos))
    info.write_to_directory(folder)
    return names


def _features(fields):
    # Bytes come back as they are, not decoded.
    text = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.FeaturesDict(dict.fromkeys(fields, text))
