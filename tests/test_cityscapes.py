"""The classes: names, colours and constants agree with each other."""

import numpy as np

from re2pix_jax import cityscapes


def test_the_nineteen_classes():
    assert cityscapes.CLASSES == len(cityscapes.COLOURS) == 19
    assert len({tuple(colour) for colour in cityscapes.COLOURS}) == 19
    constants = [name.upper().removeprefix('TRAFFIC ') for name in cityscapes.NAMES]
    assert [getattr(cityscapes, name) for name in constants] == list(range(19))
    assert [cityscapes.NAMES[index] for index in cityscapes.MOVING] == [
        *('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
    ]


def test_ids_of_the_dataset_become_train_ids():
    ids = cityscapes.TRAIN_IDS
    assert (ids[7], ids[26], ids[33]) == (cityscapes.ROAD, cityscapes.CAR, cityscapes.BICYCLE)
    assert sorted(set(ids.tolist())) == [*range(19), cityscapes.IGNORE]
    assert np.count_nonzero(ids != cityscapes.IGNORE) == 19
