# %% [markdown]
# # Train on your videos
#
# Fine-tunes the shipped model on a folder of videos, and shows what that changed on footage that
# it has not seen. Without footage of yours three videos of a procedural street are made.
#
# A CPU is enough for the minute of training that is asked for below, and takes five in all; half an
# hour makes a difference to look at. A GPU or TPU is used where the runtime has one.

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
# @title What to train on
footage = ''  # @param {type: "string"}
upload = False  # @param {type: "boolean"}
drive = False  # @param {type: "boolean"}
minutes = 1.0  # @param {type: "number"}
out = 'my_model'  # @param {type: "string"}
seconds = 12  # of each of the three videos that are made where there is no footage
more = ()  # further flags of `re2pix finetune`

# %% [markdown]
# ## Footage
# A folder of videos, or of folders of images. A tenth of it is held out. With `drive` the model is
# written to Google Drive, and a folder there can be named as footage.

# %%
import pathlib

from re2pix_jax import world
from re2pix_jax.data import video

if drive:
    from google.colab import drive as google_drive

    google_drive.mount('/content/drive')
    out = f'/content/drive/MyDrive/{out}'
if upload:
    from google.colab import files

    footage = 'footage'
    for name, data in files.upload().items():
        pathlib.Path(footage).mkdir(exist_ok=True)
        pathlib.Path(footage, name).write_bytes(data)
if not footage:
    footage = 'footage'
    for number in range(3):
        shown = world.render('test', number, range(round(seconds * world.FPS))).frames
        video.write(f'{footage}/street_{number}.mp4', shown, world.FPS)
print(*sorted(path.name for path in pathlib.Path(footage).iterdir()))

# %% [markdown]
# ## Training
# It says first what it will do and how long that takes here. Run again after an interruption, it
# goes on.

# %%
re2pix('finetune', footage, f'--out={out}', f'--minutes={minutes}', *more)

# %% [markdown]
# ## Curves
# The loss of each part over its steps; in a minute it hardly falls.

# %%
import matplotlib.pyplot as plt

from re2pix_jax.training import writer

logs = {
    part: rows
    for part in ('vae', 'forecaster', 'generator')
    if (rows := writer.read_log(f'{out}.work/{part}'))
}
figure, axes = plt.subplots(1, len(logs), figsize=(5 * len(logs), 3), squeeze=False)
for axis, (part, rows) in zip(axes[0], logs.items()):
    axis.plot([row['step'] for row in rows], [row['loss'] for row in rows], marker='.')
    axis.set(title=part, xlabel='step', ylabel='loss')
plt.show()

# %% [markdown]
# ## What changed
# Three held-out moments, from the page that was made: the truth, the untuned model, the tuned one
# (`prediction`), and the features.

# %%
import base64
import io
import re

from IPython.display import display
from PIL import Image

page = pathlib.Path(out, 'index.html').read_text()
for data in re.findall(r'data:image/png;base64,([^"]+)', page):
    display(Image.open(io.BytesIO(base64.b64decode(data))))

# %% [markdown]
# ## Use it
# The folder is a bundle: `re2pix_jax.load`, `re2pix predict --model=...` and `re2pix evaluate` take
# it; `index.html` in it is that page, with tables.

# %%
model = re2pix_jax.load(out)
first = sorted(path for path in pathlib.Path(footage).iterdir() if path.suffix == '.mp4')[0]
future = model.predict(first, horizon=8, num_futures=2)
display(future)
