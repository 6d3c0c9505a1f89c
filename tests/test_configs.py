"""Every config trains: each one, shrunk to micro sizes, takes two steps and evaluates."""

import pytest

from re2pix_jax import tasks
from re2pix_jax.clips import loader
from re2pix_jax.training import loop, writer
from tests.conftest import ROOT, load_config, shrink

TRAINED = ('autoencoder', 'encoder', 'head', 'forecaster', 'generator')


def test_every_config_is_known_here():
    assert {path.stem for path in (ROOT / 'configs').glob('*.py')} == {*TRAINED, 'principal', 'evaluate'}


@pytest.mark.parametrize('size', ['tiny', 'small', 'base'])
@pytest.mark.parametrize('name', TRAINED)
def test_shrunk_config_trains(name, size, micro_bundles, tmp_path):
    config = shrink(load_config(name, size), micro_bundles, eval_every=2)
    config.eval_data.clips = 3  # a ragged last batch
    task = tasks.create(config)
    train_data = loader.create(config.data, config.batch_size, config.seed)
    loop.train(task, config, str(tmp_path), train_data,
               lambda: loader.create(config.eval_data, config.batch_size, config.seed, training=False))
    rows = writer.read_log(str(tmp_path))
    assert [row['step'] for row in rows if 'loss' in row] == [1, 2]
    assert any(key.startswith('eval/') for row in rows for key in row)
    assert all(value is not None for row in rows for value in row.values())


@pytest.mark.parametrize('name', [*TRAINED, 'principal'])
def test_unknown_size_is_named(name):
    with pytest.raises(ValueError, match="config size 'huge': expected one of tiny, small, base"):
        load_config(name, 'huge')
