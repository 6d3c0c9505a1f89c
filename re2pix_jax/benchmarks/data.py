"""Training windows from prepared records, and from PNG files beside torch's DataLoader over them.

    re2pix benchmark data --windows=100

Files of 2048x1024 as Cityscapes has, which torch's side opens by Pillow; windows of 5 frames at
256x512. And how many cores feed one device.
"""

import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from re2pix_jax import world
from re2pix_jax.benchmarks import measuring
from re2pix_jax.data import frame_records, loader
from re2pix_jax.data.sources import cityscapes
from re2pix_jax.training import hardware

UTILISATION = 0.4  # of a device's peak; what well-written training reaches [O]


def run(windows: int, threads: int) -> None:
    """Prints everything."""
    rows, rates = [], {}
    with tempfile.TemporaryDirectory() as folder:
        raw, prepared = pathlib.Path(folder, 'raw'), pathlib.Path(folder, 'prepared')
        size = _snippets(raw, 4)
        frame_records.write_frames(
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
            clips = loader.create({**fields, 'sources': (source,)}, 1)
            rates[name] = _rate(clips, windows)
        rates['the PNG files, torch'] = _rate(_torch_windows(raw, threads), windows)
    for name, rate in rates.items():
        rows.append([name, rate, rates['prepared records'] / rate])
    print(
        'Windows of 5 frames at 256x512 a second and core, from 2048x1024 PNG files of '
        f'{size / 1e6:.1f} MB'
    )
    measuring.report(rows, ('read from', 'windows / s', 'records / this'))
    device = 1e12 * hardware.peak_tflops('h200')
    for stage, work in _work_of_a_window().items():
        needed = device * UTILISATION / work
        cores = needed * (8 if stage == 'generator' else 5) / 5 / rates['prepared records']
        print(
            f'{stage}, base size: {work / 1e12:.1f} TFLOP a window; a device of '
            f'{device / 1e12:.0f} TFLOP/s, {UTILISATION:.0%} of them used, takes {needed:.0f} '
            f'windows a second: {cores:.1f} cores'
        )


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


def _rate(clips, windows: int) -> float:
    """Windows a second of one core's time, all threads together, after some that do not count."""
    for _ in range(4):
        next(clips)
    began = time.process_time()
    for _ in range(windows):
        next(clips)
    return windows / (time.process_time() - began)


def _torch_windows(raw, threads):
    """What a plain loader does: per window five files opened by Pillow, one random crop, resized,
    to float tensors.
    """
    import torch

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
    torch.set_num_threads(threads)
    return iter(torch.utils.data.DataLoader(Windows(), batch_size=1))
