# %% [markdown]
# # See a future
#
# From four frames of a driving video, what happens next, several times: the scene's semantics are
# forecast first, and rendered then. `tiny`, the model that comes with the package, knows a
# procedural street of 64x128 pixels; it is no model of real streets, though you can give it some.
#
# Takes a minute on a CPU; a GPU or TPU is used where the runtime has one.

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

# %% tags=["parameters"]
# @title What to predict
video = ''  # @param {type: "string"}
upload = False  # @param {type: "boolean"}
start = 0.0  # @param {type: "number"}
clip = 3  # @param {type: "integer"}
horizon = 8  # @param {type: "slider", min: 1, max: 60}
futures = 3  # @param {type: "slider", min: 1, max: 6}
seed = 0  # @param {type: "integer"}
# Without a video: the clip of that number, of the street that the model was not trained on.

# %%
if upload:
    from google.colab import files

    video = next(iter(files.upload()))

# %% [markdown]
# ## The model
# What it is made of, and what it takes on this machine. Compiling takes longest, and happens once:
# it serves all horizons.

# %%
model = re2pix_jax.load('tiny')
print(model)
model.info(futures)

# %% [markdown]
# ## The futures
# A video of all of them side by side, and the same through time. They share the forecast of the
# features, whose first three principal components are shown as red, green and blue; the noise
# decides between them. The first row is what did happen, where that is known.

# %%
from IPython.display import display

from re2pix_jax.evaluation import prediction

if video:
    seen = prediction.read_video(model, video, horizon, start)
else:
    seen = prediction.read_world(model, f'validation:{clip}', horizon, start)
context, truth = seen.frames[: model.context_frames], seen.frames[model.context_frames :]
future = model.predict(context, horizon, seed, futures)
display(future)
display(future.sheet(truth))

# %% [markdown]
# ## Guidance
# Representation guidance leads away from what the coarse semantics alone would give, the first few
# components: at 0 it does nothing, the paper explores 0.4. Move the slider and run the cell again:
# nothing is compiled anew but for the first weight above 0.

# %%
guidance = 0.4  # @param {type: "slider", min: 0, max: 3, step: 0.1}
components_kept = 8  # @param {type: "slider", min: 1, max: 64}
guided = model.predict(context, horizon, seed, guidance=guidance, guidance_channels=components_kept)
display(guided.sheet(truth))

# %% [markdown]
# ## How much of the semantics is needed?
# The generator is given the first few components alone, though the sheets show all that were
# forecast. Again, nothing is compiled anew.

# %%
for channels in (1, 8, 64):
    print(f'{channels} of {model.generator.net.components} components')
    display(model.predict(context, horizon, seed, channels=channels).sheet())

# %% [markdown]
# ## Keep it
# `future.mp4` and `sheet.png`, in the folder `future`.

# %%
future.save('future')
print(*sorted(os.listdir('future')))
