"""Clips in the layout of tensorflow-datasets: ArrayRecord shards and the files that describe them.

A module of its own, because importing tensorflow-datasets takes half a second. TFDS's builders keep a split in memory, or
need TensorFlow to put it elsewhere; its sequential writer needs neither.
"""

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info

CLIPS_PER_SHARD = 256  # [O]


def build(folder, feed, fields) -> None:
    """Writes records and TFDS's description of them into `folder`, one clip at a time.

    Args:
        folder: must not exist.
        feed: split → iterator of records, {'name': bytes, field: list of bytes, one for each frame}.
        fields: names of these lists.
    """
    folder.mkdir()
    text = tfds.features.Tensor(shape=(), dtype=np.object_)  # bytes come back as they are, not decoded
    features = tfds.features.FeaturesDict({'name': text, **dict.fromkeys(fields, tfds.features.Sequence(text))})
    identity = dataset_info.DatasetIdentity(name='driving_clips', version=tfds.core.Version('1.0.0'),
                                            data_dir=str(folder), module_name=__name__)
    info = tfds.core.DatasetInfo(builder=identity, features=features, disable_shuffling=True,
                                 description=f'Driving clips: {", ".join(fields)} of every frame.')
    writer = tfds.core.SequentialWriter(info, CLIPS_PER_SHARD, file_format='array_record')
    writer.initialize_splits(list(feed))
    for split, records in feed.items():
        for record in records:
            writer.add_examples({split: [record]})
        writer.close_splits([split])
