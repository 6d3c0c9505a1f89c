"""Cityscapes' labels: train ids, names, colours, and which of them move."""

import numpy as np

IGNORE = 255
MOVING = range(11, 19)
"""Person, rider, car, truck, bus, train, motorcycle, bicycle: the classes of moving-object mIoU.
[R]
"""

NAMES = (
    'road',
    'sidewalk',
    'building',
    'wall',
    'fence',
    'pole',
    'traffic light',
    'traffic sign',
    'vegetation',
    'terrain',
    'sky',
    'person',
    'rider',
    'car',
    'truck',
    'bus',
    'train',
    'motorcycle',
    'bicycle',
)
"""Cityscapes' 19 classes in the order of their train ids."""
CLASSES = len(NAMES)

COLOURS = np.array(
    [
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ],
    np.uint8,
)
"""Cityscapes' colours, uint8 [19, 3] RGB."""

TRAIN_IDS = np.full(256, IGNORE, np.uint8)
"""From the ids of labelIds files to train ids: those of the 19 evaluated classes in their order,
all others ignored.
"""
TRAIN_IDS[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(
    19
)
