"""Cityscapes as published: snippets of 30 frames at 17 Hz, of which the 20th has labels.

    leftImg8bit_sequence/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_{labelTrainIds,labelIds}.png
    leftImg8bit_sequence_depthv2/{train,val}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit_depth.png
    disparity_sequence/ or disparity/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_disparity.png
    camera/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_camera.json

SEQUENCE and FRAME have six digits. All but the first are optional. In most cities a snippet is one
sequence; cities with fewer than ten hold long recordings, which are cut. [R]

The third are not the dataset's own: DINO-Foresight published the 256 ordinal classes that a
monocular teacher gives, 0 ignored, and judges depth by them [R]. Its files of surface normals are
not read: normals come from depth in metres.
"""

import json
import re

import numpy as np

from re2pix_jax.cityscapes import TRAIN_IDS
from re2pix_jax.data import records
from re2pix_jax.data.sources.image_clips import Clip, ImageClips, names
from re2pix_jax.errors import UserError

FPS, SNIPPET = 17.0, 30
TARGET = 19  # the frame with labels, predicted from frames 3 apart [R]
FEW = 10  # sequences; a city with fewer holds long recordings [R]
TEACHER = 'leftImg8bit_sequence_depthv2'
KINDS = 'gtFine', TEACHER, 'disparity_sequence', 'disparity', 'camera'
PARTS = {'train': 'train', 'validation': 'val', 'test': 'test'}
FRAME = re.compile(r'(\w+_(\d{6})_(\d{6}))_leftImg8bit\.png')


class Cityscapes(ImageClips):
    """Snippets named by city and sequence, those of long recordings by their first frame too.

    Labels where gtFine has them; its own labelIds are mapped to train ids, and the labelTrainIds
    that its devkit makes are taken first. Depth is the classes of the teacher where the split has a
    folder of them, otherwise metres, which are baseline * focal length / disparity: the clips of a
    split have one kind (`depth_kind`).
    """

    NAME = 'Cityscapes'
    EXPECTED = 'leftImg8bit_sequence/{train,val,test}/CITY/CITY_000000_000000_leftImg8bit.png'
    SPLITS = tuple(PARTS)

    def _list(self, split):
        part = PARTS[split]
        return [
            clip
            for city in names(self.path / 'leftImg8bit_sequence' / part)
            for clip in self._city(part, city)
        ]

    def _city(self, part, city):
        sequences = {}
        for match in map(FRAME.fullmatch, names(self.path / 'leftImg8bit_sequence' / part / city)):
            if match:
                sequences.setdefault(f'{city}_{match[2]}', []).append(match[1])
        if len(sequences) < FEW:
            sequences = {
                stems[0]: stems for recording in sequences.values() for stems in _cut(recording)
            }
        there = {kind: set(names(self.path / kind / part / city)) for kind in KINDS}
        return [self._snippet(name, stems, part, city, there) for name, stems in sequences.items()]

    def _snippet(self, name, stems, part, city, there):
        """The clip of the frames `stems` (CITY_SEQUENCE_FRAME); there: kind → names of the files in
        its folder of the city.
        """

        def first(*choices):
            return next(
                (f'{kind}/{part}/{city}/{file}' for kind, file in choices if file in there[kind]),
                None,
            )

        def of_each_frame(*choices):
            found = {
                k: first(*((kind, stem + ending) for kind, ending in choices))
                for k, stem in enumerate(stems)
            }
            return {k: file for k, file in found.items() if file}

        files = [f'leftImg8bit_sequence/{part}/{city}/{stem}_leftImg8bit.png' for stem in stems]
        if len(stems) != SNIPPET or _number(stems[-1]) - _number(stems[0]) != SNIPPET - 1:
            return Clip(
                name,
                files,
                FPS,
                TARGET,
                problem=f'{len(stems)} frames from {stems[0]} on, expected {SNIPPET} in a row',
            )
        labels = of_each_frame(
            ('gtFine', '_gtFine_labelTrainIds.png'), ('gtFine', '_gtFine_labelIds.png')
        )
        classes = (self.path / TEACHER / part).is_dir()
        if classes:
            depth, camera = of_each_frame((TEACHER, '_leftImg8bit_depth.png')), None
        else:
            depth = of_each_frame(
                ('disparity_sequence', '_disparity.png'), ('disparity', '_disparity.png')
            )
            camera = first(('camera', f'{stems[TARGET]}_camera.json'))
        problem = None
        if TARGET not in labels and part != 'test' and (self.path / 'gtFine' / part).is_dir():
            problem = f'no label gtFine/{part}/{city}/{stems[TARGET]}_gtFine_labelIds.png'
        elif classes and TARGET not in depth:
            problem = f'no depth {TEACHER}/{part}/{city}/{stems[TARGET]}_leftImg8bit_depth.png'
        elif depth and not (classes or camera):
            problem = f'a disparity but no camera/{part}/{city}/{stems[TARGET]}_camera.json'
        return Clip(
            name, files, FPS, TARGET, labels, depth if classes or camera else {}, camera, problem
        )

    def depth_kind(self, index):
        clip = self.clips[index]
        return ('metres' if clip.camera else 'classes') if clip.depth else None

    def depth_coding(self, index):
        clip = self.clips[index]
        if not clip.depth:
            return super().depth_coding(index)
        if not clip.camera:
            return records.CLASSES
        file = self.path / clip.camera
        try:
            camera = json.loads(file.read_bytes())
            scale = float(camera['extrinsic']['baseline']) * float(camera['intrinsic']['fx'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{file}: not a camera with extrinsic baseline and intrinsic fx; take it from the '
                'dataset again'
            ) from error
        if not 0 < scale < np.inf:
            raise UserError(
                f'{file}: baseline * fx is {scale:g}, expected a positive number; take it from the '
                'dataset again'
            )
        return 'inverse', 256 * scale  # a count p means a disparity of (p - 1) / 256 pixels

    def _labels(self, file, shape):
        labels = super()._labels(file, shape)
        return TRAIN_IDS[labels] if file.endswith('_labelIds.png') else labels


def _number(stem) -> int:
    return int(stem[-6:])


def _cut(stems):
    """Yields a recording's snippets, beginning anew wherever frames are missing. [O: the published
    ones begin after a gap each, so that counting to 30 gives the same; but here a frame that was
    lost spoils one snippet rather than all after it]

    What remains at the end of the recording is left out; what is short before a gap is not, for it
    may be a damaged copy.
    """
    snippet = []
    for stem in stems:
        if snippet and (len(snippet) == SNIPPET or _number(stem) != _number(snippet[-1]) + 1):
            yield snippet
            snippet = []
        snippet.append(stem)
    if len(snippet) == SNIPPET:
        yield snippet
