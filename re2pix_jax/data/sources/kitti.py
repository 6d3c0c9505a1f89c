"""KITTI raw as published: the left colour camera of a drive at 10 Hz, with sparse depth from the
laser scanner. No labels.

    DATE/DATE_drive_NNNN_sync/image_02/data/0000000000.png
    [data_depth_annotated/]{train,val}/DATE_drive_NNNN_sync/
        proj_depth/groundtruth/image_02/0000000005.png

The second are the annotated depth maps of the depth benchmark, optional; the first and last frames
of a drive have none.
"""

import re

from re2pix_jax.data import records
from re2pix_jax.data.sources.image_clips import Clip, ImageClips, names

FPS = 10.0
TARGET = 28  # [O] as for nuScenes: no protocol for KITTI is published
METRES = 1 / 256  # in a count of a depth map
DATE = re.compile(r'\d{4}_\d\d_\d\d')
FRAME = re.compile(r'\d{10}\.png')

# The 33 training and the 28 test drives of Eigen's split; the other drives of KITTI are in neither.
# [R]
TRAIN = {
    '2011_09_26': (
        1,
        5,
        11,
        14,
        15,
        17,
        18,
        19,
        22,
        28,
        32,
        35,
        39,
        51,
        57,
        60,
        61,
        70,
        79,
        87,
        91,
        95,
        104,
        113,
    ),
    '2011_09_28': (1,),
    '2011_09_29': (4, 26),
    '2011_09_30': (20, 28, 33, 34),
    '2011_10_03': (34, 42),
}
TEST = {
    '2011_09_26': (
        2,
        9,
        13,
        20,
        23,
        27,
        29,
        36,
        46,
        48,
        52,
        56,
        59,
        64,
        84,
        86,
        93,
        96,
        101,
        106,
        117,
    ),
    '2011_09_28': (2,),
    '2011_09_29': (71,),
    '2011_09_30': (16, 18, 27),
    '2011_10_03': (27, 47),
}


class Kitti(ImageClips):
    """One clip a drive. Eigen's training drives are 'train', the test drives both 'validation' and
    'test' [O: validation, as published, is single frames of the training drives]. Drives that are
    in neither list are left out.
    """

    NAME = 'KITTI'
    EXPECTED = '2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png'
    SPLITS = ('train', 'validation', 'test')
    PREPARED = ('train', 'validation')  # the third is the second again

    def _list(self, split):
        clips, drives = [], TRAIN if split == 'train' else TEST
        for date in filter(DATE.fullmatch, names(self.path)):
            for drive in names(self.path / date):
                number = re.fullmatch(rf'{date}_drive_(\d{{4}})_sync', drive)
                if number and int(number[1]) in drives.get(date, ()):
                    clips.append(self._drive(date, drive))
        return [clip for clip in clips if clip.files]

    def _drive(self, date, drive):
        folder = f'{date}/{drive}/image_02/data'
        frames = [name for name in names(self.path / folder) if FRAME.fullmatch(name)]
        depth = {}
        for above in ('', 'data_depth_annotated/'):
            for part in ('train', 'val'):
                maps = f'{above}{part}/{drive}/proj_depth/groundtruth/image_02'
                there = set(names(self.path / maps))
                depth |= {k: f'{maps}/{name}' for k, name in enumerate(frames) if name in there}
        complete = not frames or int(frames[-1][:10]) - int(frames[0][:10]) == len(frames) - 1
        return Clip(
            drive.removesuffix('_sync'),
            [f'{folder}/{name}' for name in frames],
            FPS,
            TARGET,
            depth=depth,
            problem=None
            if complete
            else f'frames are missing between {frames[0]} and {frames[-1]} in {folder}',
        )

    def depth_kind(self, index):
        return 'metres' if self.clips[index].depth else None

    def depth_coding(self, index):
        return ('linear', METRES) if self.clips[index].depth else records.CENTIMETRES
