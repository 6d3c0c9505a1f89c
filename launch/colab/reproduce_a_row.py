# %% [markdown]
# # Reproduce a row
#
# The paper's table asks what each ingredient of the training is worth. Here two rows of it are
# trained from the same shipped generator, on the same clips and as long, and compared on clips that
# neither has seen: `full`, the method, and `predicted_only`, which is never shown true features.
#
# As short as this it shows how a row is made, not which is better: a verdict that rests on one seed
# says nothing of the next. With `steps = 200`, `clips = 1000` and three seeds it is the study of
# `configs/README.md`, which `launch/study.sh` runs whole. A CPU is enough, and takes five minutes.

# %%
# @title Install (a minute or two on a fresh runtime)
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys

if importlib.util.find_spec('re2pix_jax') is None:
    gpu, tpu = shutil.which('nvidia-smi'), any(name.startswith('TPU_') for name in os.environ)
    wanted = 're2pix_jax' + ('[tpu]' if tpu else '[colab]' if gpu else '')
    # RE2PIX_INSTALL: what pip is told instead, such as a wheel or git+https:....
    asked = shlex.split(os.environ.get('RE2PIX_INSTALL', wanted))
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', *asked], check=True)
    importlib.invalidate_caches()

import jax

import re2pix_jax

print(
    f're2pix_jax {re2pix_jax.__version__} on {len(jax.devices())} x {jax.devices()[0].device_kind}'
)


# %%
def re2pix(*command):
    """A command of the package, its lines shown as they come."""
    line = [sys.executable, '-u', '-m', 're2pix_jax', *map(str, command)]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(line, **options) as process:
        for text in process.stdout:
            print(text, end='')
    if process.returncode:
        raise RuntimeError(f're2pix {command[0]} ended with status {process.returncode}')


# %% tags=["parameters"]
# @title Which rows, and how much
rows = ['full', 'predicted_only']
seeds = [0]
steps = 10  # @param {type: "integer"}
clips = 24  # @param {type: "integer"}
judged = 16  # @param {type: "integer"}
model = 'tiny'
more = ()  # further flags of `re2pix train`
evaluation = ('--config.horizons=(4,8)', '--config.evaluation.horizon=8')  # of `re2pix study`

# %% [markdown]
# ## Clips
# Rendered, and encoded once by the frozen networks, for training; rendered for the evaluation.

# %%
import pathlib

from re2pix_jax import bundles

parts = bundles.resolve(model)
height, width = re2pix_jax.load(model).size
size = f'--size={height}x{width}'
splits = f'--clips={clips}', '--validation_clips=1'
re2pix('prepare', 'world', '--out=study/clips', size, *splits)
re2pix(
    'prepare',
    'encode',
    '--source=records:study/clips',
    '--out=study/encoded',
    f'--encoder={parts}/forecaster/encoder',
    f'--principal={parts}/forecaster/principal',
    f'--vae={parts}/vae',
)
splits = '--clips=1', f'--validation_clips={judged}'
re2pix('prepare', 'world', '--out=study/world', size, '--frames=36', *splits)

# %% [markdown]
# ## The rows
# Every row starts from the same generator. `configs/study_train.py` says in what each differs.

# %%
for seed in seeds:
    for row in rows:
        print(f'--- {row}, seed {seed}')
        re2pix(
            'train',
            f'--config=study_train:{row}-tiny',
            f'--workdir=study/runs/{row}/{seed}',
            f'--config.seed={seed}',
            f'--config.steps={steps}',
            f'--config.init={parts}/generator',
            f'--config.frozen.forecaster={parts}/forecaster',
            f'--config.frozen.vae={parts}/vae',
            f'--config.frozen.head={parts}/head',
            "--config.data.sources=('encoded:study/encoded',)",
            "--config.eval_data.sources=('encoded:study/encoded',)",
            '--config.data.flip=0.0',
            '--config.log.writers=()',
            '--config.log.parameters=0',
            *more,
        )

# %% [markdown]
# ## The table
# All rows on the same unseen clips: tables, what can be said of the paper's claims, and how sure
# that is.

# %%
wanted = ''.join(f"'{row}'," for row in rows)
re2pix(
    'study',
    '--config=study_evaluate',
    '--workdir=study',
    '--config.evaluation.source=records:study/world',
    f'--config.evaluation.clips={judged}',
    '--config.sheets.clips=1',
    '--config.oracle_seeds=0',
    f'--config.only=({wanted})',
    *evaluation,
)

# %% [markdown]
# ## Curves and pictures
# The page that a study makes, `study/study.html`, holds more.

# %%
from IPython.display import display
from PIL import Image

for picture in sorted(pathlib.Path('study').glob('curves/*.png')):
    display(Image.open(picture))

# %%
import base64
import io
import re

page = pathlib.Path('study/study.html').read_text()
for data in re.findall(r'data:image/png;base64,([^"]+)', page)[-1:]:
    display(Image.open(io.BytesIO(base64.b64decode(data))))
