r"""Makes a model of your own videos: looks, prepares, tunes a bundle, evaluates and predicts.

    re2pix finetune my_videos --out=my_model
    re2pix finetune my_videos --out=my_model --minutes=120
    re2pix finetune my_videos --out=my_model --preview

Takes a folder of videos or of image folders. A tenth of the minutes is held out. Says first what it
will do, how long each part takes on this machine and how much disk; --preview ends there. Then
frames are prepared at the model's size and encoded once; the VAE is tuned where it gives this
footage back badly, the components are fitted anew where they hold too little of it; forecaster
(over roll-outs) and generator go on from the bundle. The tuned model is evaluated beside the
untuned one and the copied last frame on the held-out minutes, and predicts three held-out moments.

--out is a bundle, as predict and evaluate take it, with index.html, the page to look at. What comes
before it lies in OUT.work. The same command, given again after an interruption, goes on.
"""

import functools
import pathlib

from absl import flags

from re2pix_jax import bundles
from re2pix_jax.commands import cli  # first: it quietens native libraries while they load

# isort: split
from re2pix_jax.commands import _finetune, _finetune_page, _finetune_parts
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import prediction

OUT = flags.DEFINE_string('out', None, 'Bundle to write; must not exist yet.', required=True)
MODEL = flags.DEFINE_string('model', 'tiny', 'Bundle to tune: shipped name, folder, hf:owner/repo.')
MINUTES = flags.DEFINE_float('minutes', 30.0, 'Of training.', lower_bound=0.01)
STEPS = cli.integers_flag(
    'steps',
    None,
    'Instead of minutes, steps of VAE, forecaster and generator: the same model on any machine.',
    least=1,
)
PREVIEW = flags.DEFINE_bool('preview', False, 'Say what would be done, and end.')
FOLDER_FPS = flags.DEFINE_float(
    'folder_fps', windows.BASE_FPS, 'Frames per second of image folders.', lower_bound=0.01
)
SEED = flags.DEFINE_integer('seed', 0, 'Of everything that is random.', lower_bound=0)

ARGUMENTS = ('footage',)


def main(argv):
    out = pathlib.Path(OUT.value)
    if STEPS.value and len(STEPS.value) != len(_finetune_parts.SHARES):
        raise UserError(
            f'--steps={",".join(map(str, STEPS.value))}: expected three numbers, of VAE, '
            'forecaster and generator'
        )
    if (out / 'index.html').is_file():
        raise UserError(f'{out}: is there already, with its page; remove it or choose another')
    run = _finetune.Run(
        footage=pathlib.Path(argv[1]),
        out=out,
        work=out.with_name(out.name + '.work'),
        name=MODEL.value,
        model=prediction.load_model(MODEL.value),
        minutes=MINUTES.value,
        steps=dict(zip(_finetune_parts.SHARES, STEPS.value or ())),
        folder_fps=FOLDER_FPS.value,
        seed=SEED.value,
    )
    if not run.work.exists():
        bundles.check_place(out, 're2pix')
    seen = _finetune.look(run)
    size = _finetune.disk(run, seen)
    print(_finetune.describe(run, seen, _finetune.estimates(run, seen), size), flush=True)
    if PREVIEW.value:
        return 0
    _finetune.begin(run, seen, size)
    _finetune_parts.prepared(run)
    try:
        _finetune_parts.tuned(run)
    except _finetune.Stopped:
        return 143
    reports = {
        name: _finetune.once(run, name, functools.partial(_finetune_page.measured, run, model))
        for name, model in (('untuned', run.name), ('tuned', str(out)))
    }
    sections = _finetune_page.predicted(run, bundles.load(str(out), 're2pix'))
    print(_finetune_page.written(run, reports, sections))
    print(f'written to {out}: a bundle, and index.html to look at; {run.work} can be removed')
    return 0
