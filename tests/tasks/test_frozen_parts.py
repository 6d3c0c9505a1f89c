"""Frozen parts: a larger bundle serves for the part that it is made of, and copies of any precision
are the same network.
"""

import pytest

from re2pix_jax import bundles, errors, tasks
from tests.conftest import load_config, shrink


@pytest.fixture
def create(micro_bundles):
    def create(**frozen):
        config = shrink(load_config('forecaster', 'tiny'), micro_bundles)
        config.frozen.update({name: str(path) for name, path in frozen.items()})
        return tasks.create(config)

    return create


def test_a_model_serves_for_its_encoder_and_components(create, micro_bundles):
    straight, model = create(), micro_bundles / 're2pix'
    served = create(encoder=model, principal=model)
    for name in ('encoder', 'principal'):
        assert type(served.frozen[name]) is type(straight.frozen[name])
        ours, theirs = dict(served.bundles[name]), dict(straight.bundles[name])
        assert ours.pop('path') != theirs.pop('path') and ours == theirs
    with pytest.raises(errors.UserError, match='holds kind vae, where kind encoder is needed'):
        create(encoder=micro_bundles / 'vae')


def test_encoded_clips_know_copies_of_their_networks(create, micro_bundles, tmp_path):
    encoder = bundles.load(micro_bundles / 'encoder')
    bundles.save(tmp_path / 'half', encoder, storage='float16')
    bundles.save(tmp_path / 'other', encoder.replace(net=encoder.net.clone(norm_eps=1e-3)))
    by = lambda path: {
        'encoded:clips': {
            'encoder': bundles.digest(path, 'encoder'),
            'principal': bundles.digest(micro_bundles / 'principal'),
        }
    }
    for task in (create(), create(encoder=tmp_path / 'half')):
        for path in (tmp_path / 'half', micro_bundles / 'encoder', micro_bundles / 're2pix'):
            task.check_data(by(path))
        with pytest.raises(errors.UserError, match='encoded by the encoder of config.frozen'):
            task.check_data(by(tmp_path / 'other'))
