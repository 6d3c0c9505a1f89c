"""CoVLA as published: clips of 30 s at 20 Hz, as folders of images or as videos. No labels, no
depth.

    images/CLIP/0000.jpg ...    or    videos/CLIP.mp4

`images` comes first where there are both; without either, the clips lie in the folder itself.
"""

import re

import numpy as np

from re2pix_jax.data import folders, timeline, video
from re2pix_jax.data.sources.image_clips import AGAIN, Clip, ImageClips, names
from re2pix_jax.errors import UserError

FPS = 20.0  # of folders of images; a video tells its own
TARGET = 28  # predicted from frames 3 apart [R]
VIDEO = '.mp4'
NUMBER = re.compile('[0-9]+')


class CoVLA(ImageClips):
    """The first 80 % of the clips, sorted by name, are for training, the others for validation. [R]

    Reading frames of a video decodes all from the key frame before the first to the last of them.
    """

    NAME = 'CoVLA'
    EXPECTED = 'images/CLIP/0000.jpg or videos/CLIP.mp4'
    SPLITS = ('train', 'validation')

    def _list(self, split):
        """Paths of folders and videos. What is in them is looked up when asked for: six million
        images, in all of CoVLA.
        """
        self._axes = {}  # of videos: rate, and the number of each frame in the file
        paths = sorted(
            next(filter(None, map(self._paths, ('images/', 'videos/', ''))), []), key=_name
        )
        train = len(paths) * 4 // 5
        return paths[:train] if split == 'train' else paths[train:]

    def _paths(self, below):
        """Clips in this folder: the folders of images or, without any, the videos."""
        visible = names(self.path / below)
        clips = [below + name for name in visible if (self.path / below / name).is_dir()]
        if not below:  # captions and states may lie beside the clips
            clips = [folder for folder in clips if self._images(folder)]
        return clips or [below + name for name in visible if _is_video(name)]

    def _images(self, folder):
        visible = names(self.path / folder)
        return [
            f'{folder}/{name}'
            for name in sorted(visible, key=folders.forms(visible).get)
            if name.lower().endswith(folders.IMAGE_ENDINGS)
        ]

    def _clip(self, index):
        path = self.clips[index]
        if not _is_video(path):
            files = self._images(path)
            return Clip(_name(path), files, FPS, TARGET, problem=_problem(path, files))
        if path not in self._axes:
            line = timeline.of(self.path / path)
            if line.cuts:  # CoVLA's clips are unbroken
                after = line.times[line.cuts[0] - 1]
                raise UserError(
                    f'{self.path / path}: the recording pauses after {after:.2f} s, expected an '
                    f'unbroken clip; {AGAIN}'
                )
            fps, picks = timeline.even(line.times, line.rate)
            self._axes[path] = fps, np.arange(len(line.times)) if picks is None else picks
        fps, picks = self._axes[path]
        return Clip(_name(path), [path] * len(picks), fps, TARGET)

    def name(self, index):
        return _name(self.clips[index])

    def problem(self, index):
        return (
            None if _is_video(self.clips[index]) else super().problem(index)
        )  # a video would have to be opened

    def _frames(self, clip, indices):
        if not _is_video(clip.files[0]):
            return super()._frames(clip, indices)
        path = clip.files[0]
        return video.take(self.path / path, self._axes[path][1][indices])


def _problem(folder, files) -> str | None:
    if not files:
        return f'no images in {folder}'
    first, last = (file.rpartition('/')[2] for file in (files[0], files[-1]))
    numbers = [int(found[-1]) for name in (first, last) if (found := NUMBER.findall(name))]
    if len(numbers) == 2 and numbers[1] - numbers[0] != len(files) - 1:
        return f'frames are missing between {first} and {last} in {folder}'
    return None


def _is_video(path) -> bool:
    return path.lower().endswith(VIDEO)


def _name(path) -> str:
    name = path.split('/')[-1]
    return name[: -len(VIDEO)] if _is_video(name) else name
