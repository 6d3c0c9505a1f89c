"""The one TFDS builder behind all prepared clips. A module of its own, because importing tensorflow-datasets takes
half a second."""

import contextlib
import io
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds


class DrivingClips(tfds.core.GeneratorBasedBuilder):
    """Clips as `records` describes them. `feed`: split → iterator of (number, record)."""

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, feed, **options):
        self.feed = feed
        super().__init__(**options)

    def _info(self):
        features = tfds.features
        images = features.Sequence(features.Tensor(shape=(), dtype=np.object_))  # bytes come back, not decoded
        return tfds.core.DatasetInfo(
            builder=self, description='Driving clips as encoded frames, with labels and depth.', disable_shuffling=True,
            features=features.FeaturesDict({'name': features.Tensor(shape=(), dtype=np.object_), 'frames': images,
                                            'labels': images, 'depth': images}))

    def _split_generators(self, manager):
        return self.feed

    def _generate_examples(self):
        """Unused: `_split_generators` hands over the examples themselves."""
        return iter(())


def build(folder, feed) -> None:
    """Writes ArrayRecord files and TFDS's description of them into `folder`."""
    folder = pathlib.Path(folder)
    tfds.disable_progress_bar()
    builder = DrivingClips(feed, data_dir=folder, file_format='array_record')
    with contextlib.redirect_stdout(io.StringIO()):  # it announces downloads that there are none of
        builder.download_and_prepare(file_format='array_record')
    made = pathlib.Path(builder.data_dir)
    for file in made.iterdir():
        os.rename(file, folder / file.name)
    made.rmdir()
    made.parent.rmdir()
