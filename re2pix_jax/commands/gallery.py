r"""A page of predictions, good and bad, in one file that opens anywhere.

    re2pix gallery --world=validation --clips=24 --out=out/gallery
    re2pix gallery --model=my_model --video=my_videos --every=5 --out=out/gallery

Predicts clips of the procedural world, or moments of videos --every so many seconds, ranks them by
what they gain over repeating the last context frame (PSNR), and shows the best, the middle and the
worst --count of each: index.html with sheets and films inside. What cannot be read is named and
left out; the status is then 2 where it was given itself, 1 where it was found in a folder.
"""

import math
import sys

from absl import flags

from re2pix_jax import files
from re2pix_jax.commands import cli  # noqa: F401 (quietens native libraries while they load)
from re2pix_jax.data.sources.world import CLIPS
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import gallery, moments, prediction
from re2pix_jax.progress import track

MODEL = flags.DEFINE_string('model', 'tiny', 'shipped name, bundle folder or hf:owner/repo')
OUT = flags.DEFINE_string('out', None, 'folder to write to', required=True)
VIDEO = flags.DEFINE_multi_string('video', [], 'video file, folder of images or of videos')
WORLD = flags.DEFINE_string('world', '', 'a split of the procedural world, instead of videos')
COUNT_CLIPS = flags.DEFINE_integer('clips', 24, 'clips of the world', lower_bound=1)
EVERY = flags.DEFINE_float(
    'every', 5.0, 'seconds between two moments of a video', lower_bound=moments.LEAST_EVERY
)
HORIZON = flags.DEFINE_integer('horizon', 8, 'frames to predict', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, "of the sampler's noise", lower_bound=0)
COUNT = flags.DEFINE_integer('count', 3, 'predictions of each group', lower_bound=1)
REMOTE = ('model', 'out')


def main(argv):
    del argv
    if bool(VIDEO.value) == bool(WORLD.value):
        raise UserError('gallery: expected either --video or --world; see --help')
    if WORLD.value and WORLD.value not in CLIPS:
        raise UserError(f'--world={WORLD.value}: expected a split of {", ".join(CLIPS)}')
    with files.staging(OUT.value) as folder:
        model = prediction.load_model(MODEL.value)
        asked = _asked(model)
        costs = []
        clips = track(_read(model, asked, costs), len(asked), 'predict', size=lambda _: 1)
        found = gallery.predicted(model, clips, HORIZON.value, SEED.value, MODEL.value)
        picked = gallery.chosen(found, COUNT.value)
        if not picked:
            raise UserError(
                'gallery: nothing of what was given goes on after its context: there is no truth '
                'to compare with'
            )
        gains = [one.gain for one in found if not math.isnan(one.gain)]
        about = (
            f'{len(found)} predictions of {HORIZON.value} frames, seed {SEED.value}; better than '
            f'repeating the last frame in {sum(gain > 0 for gain in gains)} of the {len(gains)} '
            'that have a truth (PSNR over all steps)'
        )
        gallery.write(folder / 'index.html', f'What {MODEL.value} predicts', about, picked)
    print(about)
    print(f'written to {OUT.value}: index.html')
    return max(costs, default=0)


def _asked(model) -> list:
    if WORLD.value:
        return [f'{WORLD.value}:{index}' for index in range(COUNT_CLIPS.value)]
    return moments.moments(model, VIDEO.value, 0.0, EVERY.value)


def _read(model, asked, costs):
    """Yields the clips. What cannot be read is named, and `costs` gets the status that it asks for;
    a video is named once.
    """
    lost = set()
    for one in asked:
        if getattr(one, 'path', one) in lost:
            continue
        try:
            if isinstance(one, str):
                yield prediction.read_world(model, one, HORIZON.value)
            else:
                clip = prediction.read_video(model, one.path, HORIZON.value, one.start)
                yield clip._replace(name=one.name)
        except UserError as error:
            if len(asked) == 1:
                raise
            lost.add(getattr(one, 'path', one))
            costs.append(getattr(one, 'cost', 2))
            print(f'left out: {error}', file=sys.stderr, flush=True)
