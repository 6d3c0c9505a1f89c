"""Settings that contradict themselves are named."""

import pytest

from re2pix_jax.data import loader
from re2pix_jax.errors import UserError


def test_wrong_settings_are_named(data, folder):
    for change, words in [
        ({'sources': ()}, 'data.sources'),
        ({'weights': (1.0, 2.0)}, 'data.weights'),
        ({'weights': (0.0,)}, 'data.weights'),
        ({'strides': ()}, 'data.strides'),
        ({'crop': (0.0, 1.0)}, 'data.crop'),
        ({'crop': (0.8, 0.5)}, 'data.crop'),
        ({'flip': 2.0}, 'data.flip'),
        ({'time_flip': -1.0}, 'data.time_flip'),
        ({'window': 'end'}, 'data.window'),
        ({'unreadable': 'ignore'}, 'data.unreadable'),
        ({'label_size': (4,)}, 'data.label_size'),
        ({'size': (0, 5)}, 'data.size'),
        ({'frames': 0}, 'data.frames'),
        ({'workers': -1}, 'data.workers'),
        ({'sources': ('moon',)}, 'expected "world"'),
        (
            {'sources': (f'records:{folder}/short',), 'frames': 8},
            'all clips are too short, even clip0: 10 frames',
        ),
        ({'sources': (f'records:{folder}/none',)}, 'no prepared clips there'),
        ({'split': 'test'}, "no split 'test'"),
    ]:
        other = data.copy_and_resolve_references()
        with other.ignore_type():
            other.update(change)
        with pytest.raises(UserError, match=words.replace('.', r'\.')):
            loader.create(other, 2)
    with pytest.raises(UserError, match='batch_size = 0'):
        loader.create(data, 0)
    with pytest.raises(
        UserError, match='batch_size is 3 but 2 devices share it: choose a multiple of 2'
    ):
        loader.create(data, 3, share=((0,), 2))
    data.strides = (9,)
    with pytest.raises(
        UserError, match='clip0: 30 frames at .* too few: 5 frames at stride 9 need 37'
    ) as error:
        data.frames = 5
        list(loader.create(data, 1, training=False))
    assert '\n' not in str(error.value)
