"""Stage 1 at the published low-resolution size: its networks, and its arithmetic by hand.

Frozen DINOv2-B/14 with 4 registers on 5 frames of 224x448, projection to 1152 principal components,
masked feature transformer of width 1152.
"""

from re2pix_jax.encoder import VisionTransformer

FRAMES, PATCH, TIME, REGISTERS = (224, 448), 14, 5, 4
GRID = (FRAMES[0] // PATCH, FRAMES[1] // PATCH)
PLACES = GRID[0] * GRID[1]
ENCODER_WIDTH, ENCODER_DEPTH, ENCODER_HEADS, LAYERS = 768, 12, 12, (2, 5, 8, 11)
WIDTH, DEPTH, HEADS, COMPONENTS, HIDDEN = 1152, 12, 8, 1152, 4
FORECASTER = dict(
    components=COMPONENTS, width=WIDTH, heads=HEADS, frames=TIME, grid=GRID, dropout=0.1
)


def resize(frames: tuple[int, int], **others) -> None:
    """Sets other sizes for this process: frames (height, width) in pixels, and any of the constants
    above that do not follow from them; before anything is made.
    """
    grid = frames[0] // PATCH, frames[1] // PATCH
    globals().update(others, FRAMES=frames, GRID=grid, PLACES=grid[0] * grid[1])
    FORECASTER.update(components=COMPONENTS, width=WIDTH, heads=HEADS, grid=grid)


def flops(depth: int, all_frames: bool = False) -> dict[str, float]:
    """Floating-point operations of one clip's training step, by hand.

    Counted are matrix products alone, 2 for each multiplication and addition: 2 a weight and token,
    and 4 a channel, query and key in attention. Backward products are two for each forward one; the
    encoder and the projection have none.

    Args:
        depth: layers of the forecaster.
        all_frames: whether the last layer and the output compute every frame, as the authors' code
            does, and not just the one to forecast.
    """
    keys = PLACES + 1 + REGISTERS  # of a frame
    block = (
        24 * ENCODER_WIDTH**2 + 4 * ENCODER_WIDTH * keys
    )  # a token: qkv, proj and two of ratio 4; scores and mixing
    encoder = TIME * keys * ENCODER_DEPTH * block + TIME * PLACES * 2 * 3 * PATCH**2 * ENCODER_WIDTH
    projection = TIME * PLACES * 2 * len(LAYERS) * ENCODER_WIDTH * COMPONENTS
    temporal = 8 * WIDTH**2 + 4 * WIDTH * TIME
    spatial = 8 * WIDTH**2 + 4 * WIDTH * PLACES + 4 * HIDDEN * WIDTH**2
    read = TIME if all_frames else 1
    forward = PLACES * (
        TIME * depth * temporal
        + (TIME * (depth - 1) + read) * spatial
        + read * 2 * WIDTH * COMPONENTS
        + (TIME if all_frames else TIME - 1) * 2 * COMPONENTS * WIDTH
    )
    return {'encoder': encoder + projection, 'forward': forward, 'backward': 2 * forward}


def encoder_net():
    """DINOv2-B/14 with 4 registers."""
    return VisionTransformer(
        patch_size=PATCH,
        width=ENCODER_WIDTH,
        depth=ENCODER_DEPTH,
        heads=ENCODER_HEADS,
        registers=REGISTERS,
        layers=LAYERS,
        position_grid=(37, 37),
    )
