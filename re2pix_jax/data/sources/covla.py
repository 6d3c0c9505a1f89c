"""CoVLA as published: clips of 30 s at 20 Hz, as folders of images or as videos. No labels, no
depth.

    images/CLIP/0000.jpg ...    or    videos/CLIP.mp4

`images` comes first where there are both; without either, the clips lie in the folder itself.
"""

from re2pix_jax.data import video
from re2pix_jax.data.sources.image_clips import Clip, ImageClips, names
from re2pix_jax.errors import UserError

FPS = 20.0  # of folders of images; a video tells its own
TARGET = 28  # predicted from frames 3 apart [R]
VIDEO = '.mp4'


class CoVLA(ImageClips):
    """The first 80 % of the clips, sorted by name, are for training, the others for validation. [R]

    Reading frames of a video decodes and holds all from the first to the last of them.
    """

    NAME = 'CoVLA'
    EXPECTED = 'images/CLIP/0000.jpg or videos/CLIP.mp4'
    SPLITS = ('train', 'validation')

    def _list(self, split):
        """Paths of folders and videos. What is in them is looked up when asked for: six million
        images, in all of CoVLA.
        """
        self._probes = {}
        paths = sorted(
            next(filter(None, map(self._paths, ('images/', 'videos/', ''))), []), key=_name
        )
        train = len(paths) * 4 // 5
        return paths[:train] if split == 'train' else paths[train:]

    def _paths(self, below):
        """Clips in this folder: the folders of images or, without any, the videos."""
        visible = [name for name in names(self.path / below) if not name.startswith('.')]
        folders = [below + name for name in visible if (self.path / below / name).is_dir()]
        if not below:  # captions and states may lie beside the clips
            folders = [folder for folder in folders if self._images(folder)]
        return folders or [below + name for name in visible if _is_video(name)]

    def _images(self, folder):
        return [
            f'{folder}/{name}'
            for name in names(self.path / folder)
            if name.lower().endswith(video.IMAGE_ENDINGS) and not name.startswith('.')
        ]

    def _clip(self, index):
        path = self.clips[index]
        if not _is_video(path):
            files = self._images(path)
            return Clip(
                _name(path), files, FPS, TARGET, problem=None if files else f'no images in {path}'
            )
        if path not in self._probes:
            probe = video.probe(self.path / path)
            if not probe.frames:
                raise UserError(
                    f'{self.path / path}: the video holds no frames; take it from the dataset again'
                )
            self._probes[path] = probe
        return Clip(_name(path), [path] * self._probes[path].frames, self._probes[path].fps, TARGET)

    def name(self, index):
        return _name(self.clips[index])

    def problem(self, index):
        return (
            None if _is_video(self.clips[index]) else super().problem(index)
        )  # a video would have to be opened

    def _frames(self, clip, indices):
        if not _is_video(clip.files[0]):
            return super()._frames(clip, indices)
        first, count = min(indices), max(indices) - min(indices) + 1
        frames = video.read(
            self.path / clip.files[0], start=first / clip.fps, max_frames=count, min_frames=count
        )
        return frames[[k - first for k in indices]]


def _is_video(path) -> bool:
    return path.lower().endswith(VIDEO)


def _name(path) -> str:
    name = path.split('/')[-1]
    return name[: -len(VIDEO)] if _is_video(name) else name
