"""Points of a study that nobody had to train for."""

import numpy as np

from re2pix_jax.evaluation.study import rows


def fake_report(miou, video, clips=8):
    """An evaluation in which every frame has the same numbers, but for a Fréchet distance that
    grows with time.
    """
    steps = [
        {
            're2pix': {'miou': miou, 'psnr': 20.0, 'frechet_frames': video * number},
            'oracle': {'miou': 2 * miou, 'psnr': 25.0},
            'copy_last': {'miou': 0.2, 'psnr': 15.0, 'frechet_frames': 0.3},
            'vae': {'miou': 0.6, 'psnr': 27.0},
        }
        for number in (1, 2)
    ]
    overall = {
        'oracle': {'frechet_video': video / 2},
        # A mean over steps is what the table shows, so that these two are not read.
        're2pix': {'miou': 0.0, 'psnr': 0.0, 'frechet_frames': video, 'frechet_video': video},
        'copy_last': {'frechet_video': 9.0},
        'vae': {'frechet_video': 0.5},
    }
    protocol = {
        'model': 'model',
        'source': 'world',
        'split': 'validation',
        'clips': clips,
        'start_frame': 0,
        'window': 'start',
        'stride': 3,
        'fps': 5.0,
        'size': [64, 128],
        'label_size': [64, 128],
        'context_frames': 4,
        'horizon': 2,
        'last': False,
        'seed': 0,
        'sampler': 'euler',
        'sampler_steps': 20,
        'guidance': 0.0,
        'guidance_channels': 8,
        'channels': 0,
        'target': [],
        'context': [],
        'evals': {},
    }
    return {
        'format': 3,
        'overall': overall,
        'steps': steps,
        'about': {},
        'warnings': [],
        'left_out': [],
        'protocol': protocol,
    }


def point(label, seed, report, features=None, final=True, step=100):
    """A `Point`, with the parts of its features that are given by name."""
    return rows.Point(label, str(seed), step, final, report, features or {}, 60.0, 120.0)


def points(**seeds_of):
    """{label: [(miou, frechet_video) of each seed]} → final `Point`s."""
    return [
        point(label.replace('_with_', ', '), seed, fake_report(*found))
        for label, seeds in seeds_of.items()
        for seed, found in enumerate(seeds)
    ]


def sets(truth, name='frechet_judge', **found):
    """Features that an evaluation kept: {method: [clips, places, D]}, a window of two frames a
    place.
    """
    ends = 2 * np.arange(1, truth.shape[1] + 1)
    arrays = {'truth': truth, 'ends': ends} | found
    return {f'{name}/{part}': array for part, array in arrays.items()}
