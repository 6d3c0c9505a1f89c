# %% [markdown]
# # Encoder and features
#
# What the model forecasts is not pixels but the features of a frozen encoder, brought to their
# principal components. Here the published DINOv2 is ported and looked at beside the shipped
# encoder, which is small and was trained on a procedural street.
#
# Runs on a CPU, and downloads 88 MB.

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
# @title Which encoder, on what
checkpoint = 'https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth'
video = ''  # @param {type: "string"}
upload = False  # @param {type: "boolean"}
count = 4  # @param {type: "integer"}
height = 224  # of what the ported encoder sees; the width is twice that
more = ()  # further flags of `re2pix convert`
# checkpoint: a file, or where to get it; without a video the procedural street is shown.

# %%
import urllib.request

import numpy as np
from IPython.display import display
from PIL import Image

from re2pix_jax import world
from re2pix_jax.data import video as videos
from re2pix_jax.encoder import principal
from re2pix_jax.report import colours

if upload:
    from google.colab import files

    video = next(iter(files.upload()))
size = (height, 2 * height)
if video:
    frames = videos.read(video, fps=2, max_frames=count, size=size)
else:
    frames = world.render('validation', 3, range(0, 9 * count, 9), size).frames
print(frames.dtype, frames.shape)
display(Image.fromarray(np.concatenate(frames[:4], axis=1)))

# %% [markdown]
# ## Port
# Nothing in the file is run, and every tensor finds its place or is named.

# %%
if '://' in checkpoint:
    name = checkpoint.rsplit('/', 1)[-1]
    if not os.path.exists(name):
        urllib.request.urlretrieve(checkpoint, name)
    checkpoint = name
re2pix('convert', 'dinov2', checkpoint, 'dinov2', '--overwrite', *more)
published = re2pix_jax.load('dinov2')
shipped = re2pix_jax.load('tiny').forecaster.encoder
print(published, shipped, sep='\n')

# %% [markdown]
# ## Look
# Each patch in the colours of the first three principal components of all patches: what looks alike
# is the same to the encoder.


# %%
def picture(encoder, frames, components=3):
    """(principal components, RGB pictures) of frames [T, H, W, 3]."""
    features = encoder.encode(frames[None])
    fitted = principal.fit(principal.Moments().update(features), components)
    projected = np.asarray(fitted.project(features))[0]
    return fitted, colours.principal_colours(projected, projected, frames.shape[1:3])


for encoder in (published, shipped):
    patch = encoder.net.patch_size
    fitting = tuple(side // patch * patch for side in size)
    fitted, shown = picture(encoder, videos.fit(frames, fitting))
    share = float(fitted.variance.sum())
    print(
        f'{shown.shape[1] // patch}x{shown.shape[2] // patch} patches of {patch} pixels;', end=' '
    )
    print(f'three components hold {share:.0%} of the variance')
    display(Image.fromarray(np.concatenate(shown[:4], axis=1)))

# %% [markdown]
# ## How many components?
# Stage 1 forecasts the leading ones: this is how much of the features they hold.

# %%
import matplotlib.pyplot as plt

for name, encoder in (('published', published), ('shipped', shipped)):
    patch = encoder.net.patch_size
    fitting = tuple(side // patch * patch for side in size)
    features = encoder.encode(videos.fit(frames, fitting)[None])
    held = principal.fit(principal.Moments().update(features), min(64, features.shape[-1])).variance
    plt.plot(np.arange(1, len(held) + 1), 100 * np.cumsum(held), label=name)
plt.xlabel('principal components')
plt.ylabel('variance held, %')
plt.legend()
plt.show()
