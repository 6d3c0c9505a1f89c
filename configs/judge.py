"""The judge: a small network of video, for Fréchet distances where I3D's weights are not.

    re2pix train --config=judge:tiny --workdir=runs/judge

Twenty minutes of one core; the shipped weights were trained so. Which questions make the judge was
chosen after 600 steps each by `re2pix damages` on 96 clips: with labels or painted patches beside
them, speed and order were still guessed (a third right), and swapped neighbours were no farther
than one half of the truth is from the other; asked for speed and order alone, it told both.
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'judge'
    config.model.update(widths=pick(tiny=(16, 32, 64, 96)), reads=pick(tiny=16))
    config.loss.update(
        # weights; 0 turns a question off
        speed=1.0,
        order=1.0,
        labels=0.0,
        patches=0.0,
        speeds=(1, 2, 3),  # frames at 17 fps from one frame to the next, among which it has to tell
        mask=0.3,  # share of the places that are painted over for `patches`
    )
    config.steps = pick(tiny=2000)
    config.batch_size = 16
    config.optimizer.learning_rate = pick(tiny=2e-3)
    config.optimizer.weight_decay = 0.02
    config.ema = 0.99
    config.data.update(size=(64, 128), frames=13, strides=(1,), flip=0.5)
    config.eval_data.update(size=(64, 128), frames=13, strides=(1,), clips=32)
    return config
