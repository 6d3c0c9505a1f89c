r"""Predicts what happens next in a driving video.

    re2pix predict --video=drive.mp4 --model=tiny --out=out/drive
    re2pix predict --video=a.mp4 --video=my_videos --every=10 --out=out/many
    re2pix predict --world=validation:3 --model=tiny --out=out/world --horizon=8 --num_futures=2
    re2pix predict --world=validation:3 --model=tiny --out=out/guided --sampler=heun \
        --sampler_steps=10 --guidance=0.4

Takes the model's context frames from --start on, predicts --horizon frames and writes to --out:
future.mp4 (truth, prediction, predicted and true features), sheet.png (the same through time) and
metrics.json. Where the video goes on, its frames are the truth.

Of several --video, of a folder of videos, or with --every at several times of one, each prediction
goes to a folder of its own in --out; a video that cannot be used is named, and the others are
predicted. The status is then 2 where it was given itself, 1 where it was found in a folder.
"""

import pathlib
import sys
import time

from absl import flags

from re2pix_jax import files, remote
from re2pix_jax.commands import cli  # noqa: F401 (quietens native libraries while they load)
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import moments, prediction
from re2pix_jax.model import SAMPLING
from re2pix_jax.progress import counted

VIDEO = flags.DEFINE_multi_string(
    'video', [], 'video file, folder of images, in order of their numbers, or folder of videos'
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
EVERY = flags.DEFINE_float(
    'every', 0.0, 'predict again after so many seconds, to the end; 0: once', lower_bound=0.0
)
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
    'sampler_grid', None, 'of its times: even, shifted:0.5 or quantiles:-0.4,1'
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

REMOTE = ('model', 'out')


def main(argv):
    del argv
    videos = [path for path in VIDEO.value if path]
    prediction.check_source(videos, WORLD.value)
    _check_of_use(videos)
    with files.staging(OUT.value) as folder:  # a place that cannot be written is told at once
        with _timed(f'loading {MODEL.value}') as loading:
            model = prediction.load_model(MODEL.value, DTYPE.value)
        given = START.value, EVERY.value, FOLDER_FPS.value
        asked = moments.moments(model, videos, *given) if videos else []
        if len(asked) <= 1:
            if asked:
                clip = _read(model, asked[0].path, START.value)
            else:
                clip = prediction.read_world(model, WORLD.value, HORIZON.value, START.value)
            predicting = _predict(model, clip, folder, 'compiling and predicting')
    if len(asked) > 1:
        return _several(model, asked)
    print(f'written to {OUT.value}: future.mp4, sheet.png, metrics.json; {loading}, {predicting}')
    return 0


def _check_of_use(videos):
    """Refuses flags that say something of what is not there."""
    for flag, what in ((EVERY, 'of a video'), (FOLDER_FPS, 'of a folder of images')):
        folders = [path for path in videos if pathlib.Path(path).is_dir()]
        if flag.present and not (folders if flag is FOLDER_FPS else videos):
            raise UserError(f'--{flag.name}: is {what}, and none is given; leave it out')


def _several(model, asked) -> int:
    done, bad, status = 0, {}, 0
    tenths = all(round(moment.start, 1) == round(moment.start, 6) for moment in asked)
    digits = 1 if tenths else 2
    for number, moment in enumerate(asked, 1):
        if moment.path in bad:
            continue
        place = moment.name.replace('/', '_') + (
            f'_{moment.start:.{digits}f}s' if EVERY.value else ''
        )
        try:
            clip = _read(model, moment.path, moment.start)
        except UserError as error:
            bad[moment.path] = error
            status = max(status, moment.cost)
            how = 'error' if moment.cost == 2 else 'left out'
            print(f'{how}: {error}', file=sys.stderr, flush=True)
            continue
        doing = 'predicting' if done else 'compiling and predicting'
        with files.staging(remote.join(OUT.value, place)) as folder:
            took = _predict(model, clip, folder, doing)
        print(f'{number} of {len(asked)}: {OUT.value}/{place}; {took}\n', flush=True)
        done += 1
    if not done:
        first = next(iter(bad.values()))
        raise UserError(f'none of {len(bad)} videos can be predicted, the first: {first}')
    written = counted(done, 'folder')
    print(f'written to {OUT.value}: {written} with future.mp4, sheet.png, metrics.json')
    return status


def _read(model, path, start):
    return prediction.read_video(model, path, HORIZON.value, start, FOLDER_FPS.value)


def _predict(model, clip, folder, doing) -> str:
    """Predicts, prints and writes; says how long it took."""
    options = {name: flags.FLAGS[name].value for name in SAMPLING}
    given = HORIZON.value, SEED.value, NUM_FUTURES.value, MODEL.value
    with _timed(doing) as took:
        predicted = prediction.predict(model, clip, *given, **options)
        prediction.write(folder, model, predicted)
    print(prediction.describe(predicted.report, model.fps))
    return took


class _timed:  # noqa: N801 (used as a function)
    """Says on a terminal what is under way; as text, afterwards, how long it took."""

    def __init__(self, doing):
        self.doing, self.seconds = doing, 0.0

    def __enter__(self):
        self._live = sys.stderr.isatty()
        if self._live:
            print(f'{self.doing} ...', file=sys.stderr, flush=True)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._began

    def __str__(self):
        return f'{self.doing} {self.seconds:.1f} s'
