"""Early fusion: the semantic features join the latents at the input, so the number of tokens does
not grow [P].
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from re2pix_jax.nn.dense import Dense


class EarlyFusion(nn.Module):
    """Adds an embedding of the components to the embedding of the latent patches.

    The components are brought to the patch grid bilinearly where the two grids differ, and embedded
    by a linear layer of their own. The resampling is antialiased when it shrinks [O].
    """

    components: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self, patches: Float[Array, 'B T h w D'], components: Float[Array, '_ _ _ _ _'] | None
    ) -> Float[Array, 'B T h w D']:
        """patches [B, T, h, w, D], components [B, T, h', w', P] → [B, T, h, w, D]; ValueError when
        they do not fit.
        """
        if components is None:
            raise ValueError(
                f'the generator is conditioned on {self.components} components but was given none; '
                'pass them, or use a generator trained with components=0'
            )
        if components.shape[-1] != self.components or components.shape[:2] != patches.shape[:2]:
            raise ValueError(
                'the generator expected components [B, T, h, w, P] with B, T = '
                f'{patches.shape[:2]} and P = {self.components}, got shape {components.shape}; use '
                'the forecaster it was trained with'
            )
        embed = Dense(patches.shape[-1], dtype=self.dtype, name='embed')
        grid, theirs = patches.shape[2:4], components.shape[2:4]
        if (
            grid[0] * grid[1] > theirs[0] * theirs[1]
        ):  # both steps are linear: the one that shrinks the array comes first
            return patches + _resample(embed(components.astype(self.dtype)), grid)
        return patches + embed(_resample(components, grid).astype(self.dtype))


def _resample(maps, grid):
    """[B, T, h', w', C] → [B, T, *grid, C]."""
    if maps.shape[2:4] == grid:
        return maps
    return jax.image.resize(maps, (*maps.shape[:2], *grid, maps.shape[-1]), 'bilinear')
