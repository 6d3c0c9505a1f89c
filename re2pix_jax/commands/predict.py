r"""Predicts what happens next in a driving video.

    re2pix predict --video=drive.mp4 --model=tiny --out=out/drive
    re2pix predict --world=validation:3 --model=tiny --out=out/world --horizon=8 --num_futures=2
    re2pix predict --world=validation:3 --model=tiny --out=out/guided --sampler=heun \
        --sampler_steps=10 --guidance=0.4

Takes the model's context frames from --start on, predicts --horizon frames and writes to --out:
future.mp4 (truth, prediction, predicted and true features), sheet.png (the same through time) and
metrics.json. Where the video goes on, its frames are the truth.
"""

from absl import flags

from re2pix_jax import files
from re2pix_jax.commands import cli  # noqa: F401 (quietens native libraries while they load)
from re2pix_jax.data import windows
from re2pix_jax.evaluation import prediction
from re2pix_jax.model import SAMPLING

VIDEO = flags.DEFINE_string(
    'video', '', 'video file, or folder of images, in order of their numbers'
)
FOLDER_FPS = flags.DEFINE_float(
    'folder_fps', windows.BASE_FPS, 'frames per second of a folder of images', lower_bound=0.01
)
WORLD = flags.DEFINE_string(
    'world', '', 'instead of a video: a clip of the procedural world, SPLIT:INDEX'
)
MODEL = flags.DEFINE_string('model', 'tiny', 'shipped name, bundle folder or hf:owner/repo')
OUT = flags.DEFINE_string('out', None, 'folder to write to', required=True)
HORIZON = flags.DEFINE_integer('horizon', 8, 'frames to predict', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, "of the sampler's noise", lower_bound=0)
START = flags.DEFINE_float(
    'start', 0.0, 'seconds into the video at which the context begins', lower_bound=0.0
)
NUM_FUTURES = flags.DEFINE_integer(
    'num_futures', 1, 'futures to draw, of distinct noise', lower_bound=1
)
SAMPLER = flags.DEFINE_string(
    'sampler', None, "euler, heun or ddim; the model's own if not given, as of the next two"
)
SAMPLER_STEPS = flags.DEFINE_integer(
    'sampler_steps', None, 'of every chunk of frames', lower_bound=1
)
SAMPLER_GRID = flags.DEFINE_string(
    'sampler_grid', None, 'of its times: even, shifted:3 or quantiles:-0.4,1'
)
CONTEXT_NOISE = flags.DEFINE_float(
    'context_noise',
    0.0,
    'noise on what the model itself predicted, where it goes on from that, from 0 up to what it '
    'was trained for',
    lower_bound=0.0,
)
CHANNELS = flags.DEFINE_integer(
    'channels',
    None,
    'leading components that the generator is given; all if not given',
    lower_bound=1,
)
GUIDANCE = flags.DEFINE_float(
    'guidance', 0.0, 'weight of representation guidance; the paper explores 0.4', lower_bound=0.0
)
GUIDANCE_CHANNELS = flags.DEFINE_integer(
    'guidance_channels', 8, 'components kept in what guidance leads away from', lower_bound=0
)
DTYPE = flags.DEFINE_enum(
    'dtype',
    'float32',
    ['float32', 'bfloat16'],
    'what networks compute in; bfloat16 is faster on accelerators',
)


def main(argv):
    del argv
    prediction.check_source(VIDEO.value, WORLD.value)
    with files.staging(OUT.value) as folder:
        model = prediction.load_model(MODEL.value, DTYPE.value)
        if VIDEO.value:
            clip = prediction.read_video(
                model, VIDEO.value, HORIZON.value, START.value, FOLDER_FPS.value
            )
        else:
            clip = prediction.read_world(model, WORLD.value, HORIZON.value, START.value)
        options = {name: flags.FLAGS[name].value for name in SAMPLING}
        predicted = prediction.predict(
            model, clip, HORIZON.value, SEED.value, NUM_FUTURES.value, MODEL.value, **options
        )
        prediction.write(folder, model, predicted)
    print(prediction.describe(predicted.report, model.fps))
    print(f'written to {OUT.value}: future.mp4, sheet.png, metrics.json')
