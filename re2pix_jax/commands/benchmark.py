"""Speed and memory, each beside a well-known other implementation, in one run on one machine.

    python -m re2pix_jax benchmark pca                       scikit-learn's PCA
    python -m re2pix_jax benchmark encoder                   DINOv2-B of `transformers`, 224x448
    python -m re2pix_jax benchmark vae                       Stable Diffusion's VAE of \
        `diffusers`, 256x512
    python -m re2pix_jax benchmark forecaster_step           plain PyTorch, stage 1's training \
        step at 224x448 (minutes a step: --repeats=1)
    python -m re2pix_jax benchmark generator_step            plain PyTorch, stage 2's training \
        step at 256x512 (on a CPU: --depth=2)
    python -m re2pix_jax benchmark generator_prediction      plain PyTorch, stage 2's prediction \
        of 8 frames, by --sampler_steps
    python -m re2pix_jax benchmark prediction                none: from frames to frames, beside \
        the video's own time (on a CPU: minutes)
    python -m re2pix_jax benchmark convert                   memory of converting a file of \
        DINOv2-g's size (needs 10 GB of disk)
    python -m re2pix_jax benchmark data                      torch's DataLoader over PNG files of \
        2048x1024, opened by Pillow

Prints both numbers and their ratio; above 1, ours is faster or smaller. Both sides get random
weights or features and the
same cores: pin the process (taskset) and set --threads to as many. The others come with `pip
    install torch transformers
diffusers scikit-learn`.
"""

# isort: split
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from re2pix_jax.errors import UserError
from re2pix_jax.report.table import table

_THREADS = flags.DEFINE_integer(
    'threads', 1, 'Threads of the other implementation (torch).', lower_bound=1
)
_BATCH = flags.DEFINE_integer(
    'batch',
    1,
    'Frames or clips at a time (encoder, vae, forecaster_step, generator_*, prediction).',
    lower_bound=1,
)
_REPEATS = flags.DEFINE_integer(
    'repeats', 5, 'Runs of each side, taken in turn; the fastest counts.', lower_bound=1
)
_DEPTH = flags.DEFINE_integer(
    'depth',
    None,
    'Layers; unset: the published 12 (forecaster_step) or what --size has.',
    lower_bound=2,
)
_SIZE = flags.DEFINE_enum(
    'size',
    'b',
    ['s', 'b', 'l', 'xl'],
    'Size of the diffusion transformer (generator_*, prediction).',
)
_SAMPLER_STEPS = flags.DEFINE_list(
    'sampler_steps',
    ['10', '20', '50'],
    'Numbers of sampler steps (generator_prediction, prediction).',
)
flags.register_validator(
    'sampler_steps',
    lambda values: values and all(value.isdigit() and int(value) for value in values),
    'expected whole numbers above 0, as in --sampler_steps=10,20',
)
_WINDOWS = flags.DEFINE_integer(
    'windows', 30, 'Training windows that each side reads (data).', lower_bound=1
)
_TOKENS = flags.DEFINE_list('tokens', ['100000', '200000'], 'Numbers of feature tokens (pca).')
_CHANNELS = flags.DEFINE_integer('channels', 3072, 'Channels of the features (pca).', lower_bound=2)
_COMPONENTS = flags.DEFINE_integer('components', 1152, 'Principal components (pca).', lower_bound=1)


def main(argv):
    if len(argv) != 2 or argv[1] not in BENCHMARKS:
        raise UserError(f'benchmark {" ".join(argv[1:])}: expected one of {", ".join(BENCHMARKS)}')
    BENCHMARKS[argv[1]]()


def in_turn(ours, theirs) -> tuple[float, float]:
    """Seconds of the fastest run of each, after one that does not count; taken in turn, so that a
    busy machine hits both.
    """
    best = [np.inf, np.inf]
    for number in range(_REPEATS.value + 1):
        for side, run in enumerate((ours, theirs)):
            began = time.perf_counter()
            run()
            if number:
                best[side] = min(best[side], time.perf_counter() - began)
    return tuple(best)


def report(rows, header=('', 'ours', 'other', 'other / ours')):
    print(table(list(header), rows))


def encoder():
    import jax
    import torch
    import transformers

    from re2pix_jax.convert import dinov2

    torch.set_num_threads(_THREADS.value)
    model = transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(num_register_tokens=4)
    ).eval()
    ours = dinov2.encoder_of(
        {name: value.numpy() for name, value in model.state_dict().items()}, 'the random model'
    )
    frames = np.random.default_rng(0).normal(size=(_BATCH.value, 1, 224, 448, 3)).astype(np.float32)
    images = torch.from_numpy(np.ascontiguousarray(frames[:, 0].transpose(0, 3, 1, 2)))
    layers = ours.net.layers

    def theirs():
        with torch.inference_mode():
            states = model(images, output_hidden_states=True).hidden_states
            return torch.cat(
                [model.layernorm(states[layer + 1])[:, 5:] for layer in layers], dim=-1
            )

    error = np.abs(
        np.asarray(ours.encode(frames)).reshape(_BATCH.value, -1, 3072) - theirs().numpy()
    ).max()
    seconds = in_turn(lambda: jax.block_until_ready(ours.encode(frames)), theirs)
    print(
        f'ViT-B/14 with 4 registers, 224x448, batch {_BATCH.value}, float32; largest difference '
        f'{error:.1e}'
    )
    report([['seconds', *seconds, seconds[1] / seconds[0]]])


def vae():
    import diffusers
    import jax
    import torch

    from re2pix_jax.convert import autoencoder_kl

    torch.set_num_threads(_THREADS.value)
    widths = (128, 256, 512, 512)
    model = diffusers.AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=['DownEncoderBlock2D'] * len(widths),
        up_block_types=['UpDecoderBlock2D'] * len(widths),
    ).eval()
    ours = autoencoder_kl.autoencoder_of(
        {name: value.numpy() for name, value in model.state_dict().items()},
        dict(model.config),
        'the random model',
    )
    frames = (
        np.random.default_rng(0)
        .uniform(-1, 1, size=(_BATCH.value, 1, 256, 512, 3))
        .astype(np.float32)
    )
    images = torch.from_numpy(np.ascontiguousarray(frames[:, 0].transpose(0, 3, 1, 2)))
    latents = np.asarray(ours.encode(frames))
    their_latents = (
        torch.from_numpy(np.ascontiguousarray(latents[:, 0].transpose(0, 3, 1, 2)))
        / ours.scaling_factor
    )
    rows = []
    for name, run, other in (
        (
            'encode',
            lambda: jax.block_until_ready(ours.encode(frames)),
            lambda: model.encode(images).latent_dist.mean,
        ),
        (
            'decode',
            lambda: jax.block_until_ready(ours.decode_float(latents)),
            lambda: model.decode(their_latents).sample,
        ),
    ):
        with torch.inference_mode():
            seconds = in_turn(run, other)
        rows.append([f'{name}, seconds', *seconds, seconds[1] / seconds[0]])
    print(f"Stable Diffusion's VAE, 256x512, batch {_BATCH.value}, float32")
    report(rows)


def pca():
    counts = [int(tokens) for tokens in _TOKENS.value]
    rows, fits = [], {}
    for tokens in counts:
        work = tokens, _CHANNELS.value, _COMPONENTS.value
        with multiprocessing.get_context('spawn').Pool(
            1, maxtasksperchild=1
        ) as pool:  # a process each: its peak is its own
            ours = pool.apply(_our_pca, work)
        with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
            theirs = pool.apply(_sklearn_pca, work)
        fits[tokens] = ours, theirs
        rows += [
            [
                f'{tokens:,} tokens: seconds',
                ours['seconds'],
                theirs['seconds'],
                theirs['seconds'] / ours['seconds'],
            ],
            [
                f'{tokens:,} tokens: peak memory, GB',
                ours['peak'],
                theirs['peak'],
                theirs['peak'] / ours['peak'],
            ],
        ]
    ours, theirs = fits[counts[-1]]
    lead = min(256, _COMPONENTS.value)
    cosines = np.linalg.svd(
        ours['components'][:lead].astype(np.float64)
        @ theirs['components'][:lead].T.astype(np.float64),
        compute_uv=False,
    )
    print(
        f'PCA of {_CHANNELS.value} channels to {_COMPONENTS.value}, beside scikit-learn '
        '(covariance_eigh, in memory)'
    )
    report(rows)
    print(
        'explained variance, largest relative difference: '
        f'{np.abs(ours["variance"] / theirs["variance"] - 1).max():.1e}; '
        f'largest angle between the leading {lead}: {np.arccos(cosines.min().clip(-1, 1)):.1e} rad'
    )


def _feature_blocks(tokens, channels, block=16384):
    """Features with a falling spectrum, mixed over channels and far from zero, made block by
    block.
    """
    import scipy.fft

    random = np.random.default_rng(0)
    signs, offset = (
        random.choice([-1.0, 1.0], channels).astype(np.float32),
        random.normal(size=channels).astype(np.float32) * 3,
    )
    scale = (1 + np.arange(channels, dtype=np.float32)) ** -0.7
    for start in range(0, tokens, block):
        latent = (
            random.standard_normal((min(block, tokens - start), channels), dtype=np.float32) * scale
        )
        yield scipy.fft.dct(scipy.fft.dct(latent, norm='ortho') * signs, norm='ortho') + offset


def _outcome(seconds, variance, components):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        'seconds': seconds,
        'peak': peak,
        'variance': np.asarray(variance),
        'components': np.asarray(components),
    }


def _our_pca(tokens, channels, components):
    from re2pix_jax.encoder import principal

    moments, seconds = principal.Moments(), 0.0
    for block in _feature_blocks(tokens, channels):
        began = time.perf_counter()
        moments.update(block).sync()
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    part = principal.fit(moments, components)
    return _outcome(seconds + time.perf_counter() - began, part.variance, part.components)


def _sklearn_pca(tokens, channels, components):
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    features = np.empty((tokens, channels), np.float32)
    start = 0
    for block in _feature_blocks(tokens, channels):
        features[start : start + len(block)] = block
        start += len(block)
    began = time.perf_counter()
    features = StandardScaler(copy=False).fit_transform(features)
    model = PCA(components, svd_solver='covariance_eigh').fit(features)
    return _outcome(time.perf_counter() - began, model.explained_variance_ratio_, model.components_)


def forecaster_step():
    from re2pix_jax.benchmarks import forecaster_step as step

    step.run(_BATCH.value, _DEPTH.value or 12, _THREADS.value, in_turn)


def generator_step():
    _share_gpu()
    from re2pix_jax.benchmarks import generator_step as step

    step.run(_BATCH.value, _SIZE.value, _DEPTH.value, _THREADS.value, in_turn)


def generator_prediction():
    _share_gpu()
    from re2pix_jax.benchmarks import generator_prediction as prediction

    steps = [int(number) for number in _SAMPLER_STEPS.value]
    prediction.run(_BATCH.value, _SIZE.value, _DEPTH.value, steps, _THREADS.value, in_turn)


def prediction():
    from re2pix_jax.benchmarks import prediction as whole

    whole.run(
        _BATCH.value,
        _SIZE.value,
        _DEPTH.value,
        [int(number) for number in _SAMPLER_STEPS.value],
        _REPEATS.value,
    )


def _share_gpu():
    """XLA takes most of a GPU's memory when it starts, where torch needs some too."""
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')


def convert():
    from re2pix_jax.bundles.kinds import KINDS
    from re2pix_jax.bundles.stored import Stored, write_safetensors
    from re2pix_jax.convert import dinov2
    from re2pix_jax.encoder import VisionTransformer

    net = VisionTransformer(
        patch_size=14,
        width=1536,
        depth=40,
        heads=24,
        registers=4,
        layers=(9, 19, 29, 39),
        position_grid=(37, 37),
        ffn='swiglu',
    )
    random = np.random.default_rng(0)

    def published(path, shape):
        shape = (
            (shape[1], 3, 14, 14)
            if 'patch_embed/kernel' in path
            else shape[::-1]
            if 'kernel' in path
            else shape
        )
        return Stored(
            shape, np.dtype(np.float32), lambda: random.standard_normal(shape, dtype=np.float32)
        )

    with tempfile.TemporaryDirectory() as folder:
        source, out = pathlib.Path(folder, 'dinov2_g.safetensors'), pathlib.Path(folder, 'bundle')
        expected = KINDS['encoder'].expected(net, {}, {}, 'DINOv2-g')
        tensors = {
            key: published(path, shape) for key, path, shape in dinov2.TABLE.sources(expected)
        }
        write_safetensors(source, tensors, lambda *_: np.float32)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, '-m', 're2pix_jax', 'convert', 'dinov2', str(source), str(out)],
            check=True,
        )
        seconds = time.perf_counter() - began
        peak, size = (
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            source.stat().st_size,
        )
    print(
        f'file {size / 1e9:.2f} GB, peak memory of converting it {peak / 1e9:.2f} GB: '
        f'{peak / size:.2f} times; {seconds:.0f} s'
    )


def data():
    from re2pix_jax.data import loader, writing
    from re2pix_jax.data.sources import cityscapes

    rows, rates = [], {}
    with tempfile.TemporaryDirectory() as folder:
        raw, prepared = pathlib.Path(folder, 'raw'), pathlib.Path(folder, 'prepared')
        size = _snippets(raw, 4)
        writing.write_frames(
            prepared, {'train': cityscapes.Cityscapes(raw, 'train')}, 'jpeg', 95, (512, 1024)
        )
        fields = {
            'size': (256, 512),
            'frames': 5,
            'strides': (2, 3, 4),
            'crop': (0.5, 1.0),
            'flip': 0.5,
            'labels': False,
        }
        for name, source in (
            ('prepared records', f'records:{prepared}'),
            ('the PNG files, ours', f'cityscapes:{raw}'),
        ):
            windows = loader.create({**fields, 'sources': (source,)}, 1)
            rates[name] = _rate(windows)
        rates['the PNG files, torch'] = _rate(_torch_windows(raw))
    for name, rate in rates.items():
        rows.append([name, rate, rates['prepared records'] / rate])
    print(
        'Windows of 5 frames at 256x512 a second and core, from 2048x1024 PNG files of '
        f'{size / 1e6:.1f} MB'
    )
    report(rows, ('read from', 'windows / s', 'records / this'))
    for stage, work in _work_of_a_window().items():
        needed = DEVICE * UTILISATION / work
        cores = needed * (8 if stage == 'generator' else 5) / 5 / rates['prepared records']
        print(
            f'{stage}, base size: {work / 1e12:.1f} TFLOP a window; a device of '
            f'{DEVICE / 1e12:.0f} TFLOP/s, {UTILISATION:.0%} of '
            f'them used, takes {needed:.0f} windows a second: {cores:.1f} cores'
        )


DEVICE, UTILISATION = (
    989e12,
    0.4,
)  # an H200 in dense bfloat16; the second [O] is what well-written training reaches


def _work_of_a_window() -> dict[str, float]:
    """FLOPs of one training window at base size, matrix products alone, by hand: 2 a weight and
    token, 4 a width and pair in attention; training takes three times the forward pass.
    configs/*.py:base.
    """

    def transformer(layers, width, tokens, weights, attended):
        return layers * tokens * (2 * weights * width**2 + 4 * width * attended)

    grid = 16 * 32
    encoder = transformer(12, 768, grid + 5, 12, grid + 5)  # a frame
    forecaster = transformer(12, 1152, 5 * grid, 16, grid + 5)  # temporal and spatial attention
    generator = transformer(12, 768, 8 * grid, 16, grid + 8)
    encode = 1.1e12  # a 256x512 frame through the encoder of Stable Diffusion's VAE, by XLA's count
    return {
        'forecaster': 5 * encoder + 3 * forecaster,
        'generator': 8 * encoder + 8 * encode + 3 * generator,
    }


def _snippets(raw, count) -> float:
    """Writes snippets in Cityscapes' layout, with the noise that makes their files as large as real
    ones. Returns bytes a file.
    """
    from PIL import Image

    from re2pix_jax import world

    random = np.random.default_rng(0)
    city = raw / 'leftImg8bit_sequence' / 'train' / 'town'
    city.mkdir(parents=True)
    frames = world.render('train', 0, [0, 10, 20], (1024, 2048)).frames
    files = []
    for frame in frames:
        files.append(city / f'{len(files)}.png')
        noisy = frame + random.standard_normal(frame.shape, dtype=np.float32)
        Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(files[-1])
    for number in range(30 * count):
        pathlib.Path(city, f'town_000000_{number:06d}_leftImg8bit.png').write_bytes(
            files[number % 3].read_bytes()
        )
    sizes = [file.stat().st_size for file in files]
    for file in files:
        file.unlink()
    return float(np.mean(sizes))


def _rate(windows) -> float:
    """Windows a second of one core's time, all threads together, after some that do not count."""
    for _ in range(4):
        next(windows)
    began = time.process_time()
    for _ in range(_WINDOWS.value):
        next(windows)
    return _WINDOWS.value / (time.process_time() - began)


def _torch_windows(raw):
    """What a plain loader does: per window five files opened by Pillow, one random crop, resized,
    to float tensors.
    """
    import torch
    from PIL import Image

    files = sorted(raw.rglob('*.png'))

    class Windows(torch.utils.data.Dataset):
        def __len__(self):
            return 1 << 20

        def __getitem__(self, number):
            random = np.random.default_rng(number)
            stride = random.integers(2, 5)
            start = random.integers(len(files) // 30) * 30 + random.integers(30 - 4 * stride)
            scale, down, right = random.uniform(0.5, 1), random.random(), random.random()
            height, width = int(1024 * scale), int(2048 * scale)
            top, left = int(down * (1024 - height)), int(right * (2048 - width))
            images = []
            for k in range(5):
                with Image.open(files[start + k * stride]) as image:
                    cut = image.convert('RGB').crop((left, top, left + width, top + height))
                pixels = np.array(cut.resize((512, 256), Image.Resampling.BILINEAR))
                images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
            return torch.stack(images)

    Image.core.set_blocks_max(0)  # as Pillow comes, and not as `records` sets it
    torch.set_num_threads(_THREADS.value)
    return iter(torch.utils.data.DataLoader(Windows(), batch_size=1))


BENCHMARKS = {
    'pca': pca,
    'encoder': encoder,
    'vae': vae,
    'forecaster_step': forecaster_step,
    'generator_step': generator_step,
    'generator_prediction': generator_prediction,
    'prediction': prediction,
    'convert': convert,
    'data': data,
}


ARGUMENTS = None
