r"""Measures speed and memory beside a well-known other implementation.

    re2pix benchmark pca                      scikit-learn's PCA
    re2pix benchmark encoder                  DINOv2-B of `transformers`, 224x448
    re2pix benchmark vae                      Stable Diffusion's VAE of `diffusers`, 256x512
    re2pix benchmark forecaster_step          plain PyTorch, stage 1's training step at 224x448
    re2pix benchmark generator_step           plain PyTorch, stage 2's training step at 256x512
    re2pix benchmark generator_prediction     plain PyTorch, stage 2's prediction of 8 frames
    re2pix benchmark prediction               none: from frames to frames, beside the video's time
    re2pix benchmark attention                none: candidates for TPUs, by the compiler's schedule
    re2pix benchmark convert                  none: memory of converting a file of DINOv2-g's size
    re2pix benchmark data                     torch's DataLoader over PNG files opened by Pillow
    re2pix benchmark gpu_suite                plain PyTorch, what GPUs are measured by, in one table

Prints both numbers and their ratio; above 1, ours is faster or smaller. Both sides get random
weights or features and the same cores: pin the process (taskset) and set --threads to as many. The
others come with `pip install torch transformers diffusers scikit-learn`. `re2pix benchmark NAME
--help` says what one takes.
"""

import importlib
import inspect

from absl import flags

from re2pix_jax.benchmarks import BENCHMARKS
from re2pix_jax.commands import cli
from re2pix_jax.errors import UserError

flags.DEFINE_integer('threads', 1, 'Threads of the other implementation (torch).', lower_bound=1)
flags.DEFINE_integer('batch', 1, 'Frames or clips at a time.', lower_bound=1)
flags.DEFINE_integer(
    'repeats', 5, 'Runs of each side, taken in turn; the fastest counts.', lower_bound=1
)
flags.DEFINE_integer('depth', None, 'Layers; unset: what the size has.', lower_bound=2)
flags.DEFINE_enum('size', 'b', ['s', 'b', 'l', 'xl'], 'Size of the diffusion transformer.')
cli.integers_flag('sampler_steps', (10, 20, 50), 'Numbers of sampler steps.', least=1)
flags.DEFINE_integer('windows', 30, 'Training windows that each side reads.', lower_bound=1)
cli.integers_flag('tokens', (100_000, 200_000), 'Numbers of feature tokens.', least=2)
flags.DEFINE_integer('channels', 3072, 'Channels of the features.', lower_bound=2)
flags.DEFINE_integer('components', 1152, 'Principal components.', lower_bound=1)
flags.DEFINE_string('out', None, 'Folder of the results, where the same command goes on.')
flags.DEFINE_float('minutes', 8.5, 'After which it has stopped.', lower_bound=0.1)
flags.DEFINE_string('rows', '.', 'Rows to measure, a regular expression.')

ARGUMENTS = ('name',)


def main(argv):
    name = argv[1]
    run = _module(name).run
    taken = inspect.signature(run).parameters
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        if flag.present and flag.name not in taken:
            raise UserError(
                f'benchmark {name}: takes no --{flag.name}; it takes '
                f'{", ".join(f"--{option}" for option in taken) or "no flags"}'
            )
    run(**{option: flags.FLAGS[option].value for option in taken})


def about(name):
    """The text and the flags of one benchmark."""
    module = _module(name)
    return module.__doc__, inspect.signature(module.run).parameters


def _module(name):
    if name not in BENCHMARKS:
        raise UserError(f'benchmark {name}: expected one of {", ".join(BENCHMARKS)}')
    return importlib.import_module(f're2pix_jax.benchmarks.{name}')
