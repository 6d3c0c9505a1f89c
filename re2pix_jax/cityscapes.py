"""Cityscapes' classes: train ids, names, colours, and the ids of its own files. All labels of the
project are train ids, uint8, with `IGNORE` where a pixel has no class.
"""

import numpy as np

IGNORE = 255

_TABLE = (  # name, id in labelIds files, colour; in the order of the train ids
    ('road', 7, (128, 64, 128)),
    ('sidewalk', 8, (244, 35, 232)),
    ('building', 11, (70, 70, 70)),
    ('wall', 12, (102, 102, 156)),
    ('fence', 13, (190, 153, 153)),
    ('pole', 17, (153, 153, 153)),
    ('traffic light', 19, (250, 170, 30)),
    ('traffic sign', 20, (220, 220, 0)),
    ('vegetation', 21, (107, 142, 35)),
    ('terrain', 22, (152, 251, 152)),
    ('sky', 23, (70, 130, 180)),
    ('person', 24, (220, 20, 60)),
    ('rider', 25, (255, 0, 0)),
    ('car', 26, (0, 0, 142)),
    ('truck', 27, (0, 0, 70)),
    ('bus', 28, (0, 60, 100)),
    ('train', 31, (0, 80, 100)),
    ('motorcycle', 32, (0, 0, 230)),
    ('bicycle', 33, (119, 11, 32)),
)
NAMES, _IDS, _COLOURS = zip(*_TABLE, strict=True)
CLASSES = len(NAMES)

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = range(11)
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(11, 19)

MOVING = range(PERSON, BICYCLE + 1)
"""The classes of moving-object mIoU. [R]"""

COLOURS = np.array(_COLOURS, np.uint8)
"""uint8 [19, 3] RGB."""

TRAIN_IDS = np.full(256, IGNORE, np.uint8)
"""From the ids of labelIds files to train ids; all but the 19 evaluated classes are ignored."""
TRAIN_IDS[list(_IDS)] = np.arange(CLASSES)
