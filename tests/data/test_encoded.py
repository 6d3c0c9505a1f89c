"""Encoded clips: what the frozen networks make of a source, stored once, and refused where it
belongs to other networks.
"""

import subprocess
import sys

import numpy as np
import pytest

from re2pix_jax import bundles, tasks
from re2pix_jax.data import frame_records, loader
from re2pix_jax.data.sources import encoded, open_source
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults
from tests.conftest import ROOT, SIZE, load_config, shrink


def encode(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 're2pix_jax', 'prepare', 'encode', *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory, micro_bundles):
    """The world as records at `frames` and, by the command, encoded at `features`."""
    path = tmp_path_factory.mktemp('encoded')
    frame_records.write_frames(
        path / 'frames',
        {
            split: World(split, count, 12, SIZE)
            for split, count in (('train', 4), ('validation', 2))
        },
    )
    done = encode(
        f'--source=records:{path}/frames',
        f'--out={path}/features',
        f'--size={SIZE[0]}x{SIZE[1]}',
        *(f'--{name}={micro_bundles}/{name}' for name in ('encoder', 'principal', 'vae')),
    )
    assert done.returncode == 0, done.stderr
    return path


def data(folder, **changes):
    fields = defaults.data('train')
    fields.update(
        {
            'sources': (f'encoded:{folder}/features',),
            'size': SIZE,
            'frames': 8,
            'strides': (1,),
            **changes,
        }
    )
    return fields


def test_a_window_is_what_the_networks_give(folder, micro_bundles):
    batch = next(loader.create(data(folder), 2))
    assert batch.keys() == {'components', 'latents', 'record'}
    frames = next(
        loader.create(data(folder, sources=(f'records:{folder}/frames',), labels=False), 2)
    )
    np.testing.assert_array_equal(batch['record'], frames['record'])
    for name, truth in (
        ('components', bundles.load(micro_bundles / 'forecaster').encode(frames['frames'])),
        ('latents', bundles.load(micro_bundles / 'vae').encode(frames['frames'])),
    ):
        assert batch[name].dtype == np.float16
        np.testing.assert_allclose(batch[name], truth, rtol=2e-3, atol=2e-3)


@pytest.mark.long
@pytest.mark.parametrize('name', ['forecaster', 'generator'])
def test_tasks_lose_the_same_on_encoded_clips(name, folder, micro_bundles):
    import jax

    task = tasks.create(shrink(load_config(name), micro_bundles))
    losses = []
    for source in ('encoded:{}/features', 'records:{}/frames'):
        batches = loader.create(
            data(folder, sources=(source.format(folder),), frames=8 if name == 'generator' else 5),
            2,
        )
        task.check_data(batches.encoded_by())
        batch = next(batches)
        params = jax.jit(task.init)(jax.random.key(0), batch)
        losses.append(jax.jit(task.loss)(params, task.frozen, batch, jax.random.key(1))[0])
    np.testing.assert_allclose(*losses, rtol=5e-3)


def test_clips_are_encoded_in_blocks_of_one_size(tmp_path):
    shapes, clips = [], World('train', 1, 2 * encoded.BLOCK + 4, SIZE)

    def encode(frames):
        shapes.append(frames.shape)
        return {'components': frames[:, :2, :3, 0] / 7.0}

    for name, source in (('long', clips), ('short', World('train', 1, 2, SIZE))):
        encoded.write(tmp_path / name, {'train': source}, encode, SIZE, {'components': (2, 3)}, {})
    assert shapes == [(encoded.BLOCK, *SIZE, 3)] * 4
    found = encoded.Encoded(tmp_path / 'long', 'train', SIZE).read(0, range(2 * encoded.BLOCK + 4))[
        'components'
    ]
    complete = encode(clips.read(0, range(2 * encoded.BLOCK + 4), labels=False)['frames'])[
        'components'
    ]
    np.testing.assert_array_equal(found, complete.astype(np.float16))


def test_clips_of_other_networks_are_refused(folder, micro_bundles, tmp_path):
    task = tasks.create(shrink(load_config('generator'), micro_bundles))
    parts = encoded.Encoded(folder / 'features', 'train', SIZE).parts
    assert parts.keys() == {'encoder', 'principal', 'vae'}
    with pytest.raises(
        UserError,
        match='encoded:x: expected clips encoded by the vae of config.frozen, they were by '
        'another one',
    ):
        task.check_data({'encoded:x': parts | {'vae': '0'}})
    with pytest.raises(UserError, match='by the encoder of config.frozen, they were by none'):
        task.check_data({'encoded:x': {'principal': parts['principal']}})
    with pytest.raises(UserError, match='no split'):
        open_source(f'encoded:{folder}/features', 'test', SIZE)


def test_what_does_not_fit_is_named(folder, tmp_path):
    for changes, words in [
        ({'flip': 0.5}, r'set data.crop=\(1.0, 1.0\) and data.flip=0'),
        ({'crop': (0.5, 1.0)}, 'encoded whole'),
        ({'size': (16, 16)}, r'encoded from frames of \[32, 64\] pixels, data.size is \[16, 16\]'),
        ({'sources': (f'encoded:{folder}/frames',)}, 'holds frames; expected as source: "records:'),
        (
            {'sources': (f'records:{folder}/features',)},
            'holds components, latents rather than frames',
        ),
        ({'sources': (f'encoded:{folder}/features', 'world')}, 'all of them encoded, or none'),
    ]:
        with pytest.raises(UserError, match=words):
            loader.create(data(folder, **changes), 2)
    clips = {'train': World('train', 1, 2, SIZE)}
    with pytest.raises(UserError, match='train/000000: components beyond the range of float16'):
        encoded.write(
            tmp_path / 'x',
            clips,
            lambda frames: {'components': np.full((len(frames), 1), 1e5)},
            SIZE,
            {'components': (1,)},
            {},
        )
    assert not list(tmp_path.iterdir())


def test_the_command_asks_for_what_it_needs(folder, micro_bundles, tmp_path):
    done = encode(
        f'--source=records:{folder}/frames',
        f'--encoder={micro_bundles}/encoder',
        f'--out={tmp_path}/x',
    )
    assert (
        done.returncode == 2
        and done.stderr == 'error: prepare encode: --principal is missing; see --help\n'
    ), done.stderr
