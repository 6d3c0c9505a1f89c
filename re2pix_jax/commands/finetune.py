r"""Makes a model of your own videos: prepares, tunes a bundle, evaluates, predicts.

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

import pathlib

from absl import flags

from re2pix_jax.commands import cli  # first: it quietens native libraries while they load

# isort: split
from re2pix_jax.commands import _config
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import prediction
from re2pix_jax.finetuning import parts, plan
from re2pix_jax.finetuning.finetune import finetune

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
REMOTE = ('model',)
GOES_ON = True


def main(argv):
    out, steps = pathlib.Path(OUT.value), STEPS.value or ()
    if out.name in ('', '..'):
        out = out.resolve()
    if steps and len(steps) != len(parts.SHARES):
        raise UserError(
            f'--steps={",".join(map(str, steps))}: expected three numbers, of VAE, forecaster and '
            'generator'
        )
    run = plan.Run(
        footage=pathlib.Path(argv[1]),
        out=out,
        work=out.with_name(out.name + '.work'),
        name=MODEL.value,
        model=prediction.load_model(MODEL.value),
        minutes=MINUTES.value,
        steps=dict(zip(parts.SHARES, steps)),
        folder_fps=FOLDER_FPS.value,
        seed=SEED.value,
        load=_config.load,
    )
    return finetune(run, PREVIEW.value)
