"""What a prediction is as a thing to look at, in a notebook above all."""

import base64
import io
import os
import pathlib
from typing import Any

import flax.struct
import numpy as np
from PIL import Image

from re2pix_jax import files
from re2pix_jax.data import video
from re2pix_jax.nn.summary import summary
from re2pix_jax.report import colours, panels


@flax.struct.dataclass
class Future:
    """What `Re2Pix.predict` returns; every array but `context` has a leading axis of futures when
    `num_futures` was given. A notebook shows it as a video and a sheet.

    Attributes:
        frames: uint8 [horizon, H, W, 3].
        components, features: of stage 1, float32 [horizon, h, w, P] and [horizon, h, w, C].
        latents: of stage 2, float32 [horizon, H/f, W/f, c].
        context: uint8 [M, H, W, 3], the frames that it follows.
        fps: frames per second.
    """

    frames: Any
    components: Any
    features: Any
    latents: Any
    context: Any
    fps: float = flax.struct.field(pytree_node=False)

    __repr__ = summary

    def sheet(self, truth: np.ndarray | None = None) -> Image.Image:
        """Context, every future and the forecast features as colours, through time; above them
        what did happen, uint8 [K, H, W, 3] of the model's size, as far as K reaches; ValueError
        for another shape.
        """
        shown, seconds = self._panels()
        if truth is not None:
            size = self.context.shape[1:]
            if np.ndim(truth) != 4 or np.shape(truth)[1:] != size:
                raise ValueError(
                    f'truth: expected frames [K, {", ".join(map(str, size))}], got '
                    f'{list(np.shape(truth))}'
                )
            known = [*self.context, *truth][: len(seconds)]
            shown.insert(0, panels.Panel('truth', known + [None] * (len(seconds) - len(known))))
        return Image.fromarray(panels.sheet(shown, seconds))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes future.mp4 and sheet.png to `folder`, which is made where it is missing.

        Raises:
            UserError: what stands at `folder` is not one, or the disk is full.
            ValueError: it is empty.
        """
        if not os.fspath(folder):
            raise ValueError('folder: expected a place to write to, got an empty one')
        with files.staging(folder) as staged:
            video.write(pathlib.Path(staged) / 'future.mp4', self._video(), self.fps)
            self.sheet().save(pathlib.Path(staged) / 'sheet.png')

    def _repr_html_(self):
        sheet = io.BytesIO()
        self.sheet().save(sheet, 'png')
        shown = (
            ('<video controls loop autoplay muted', 'video/mp4', '></video>')
            + (video.encode(self._video(), self.fps),),
            ('<br><img style="max-width:100%"', 'image/png', '>', sheet.getvalue()),
        )
        return ''.join(
            f'{opening} src="data:{kind};base64,{base64.b64encode(data).decode()}"{closing}'
            for opening, kind, closing, data in shown
        )

    def _video(self):
        return panels.video(*self._panels())

    def _panels(self):
        """The panels and the seconds of their frames, after the last of the context."""
        several = self.frames.ndim == 5
        futures = self.frames if several else self.frames[None]
        forecast = self.components[0] if several else self.components
        count, horizon = len(self.context), futures.shape[1]
        features = colours.principal_colours(forecast, forecast, self.context.shape[1:3])
        shown = [
            *(
                panels.Panel(
                    f'prediction {n + 1}' if several else 'prediction', [*self.context, *f]
                )
                for n, f in enumerate(futures)
            ),
            panels.Panel('features', [*[None] * count, *features], absent='context'),
        ]
        return shown, [(k + 1) / self.fps for k in np.arange(-count, horizon)]
