"""The push command: a bundle and the scores of its evaluation on a hub of this machine."""

import json

import pytest
import yaml

from re2pix_jax import bundles
from tests.bundles import hub_server
from tests.running import outcomes

pytest.importorskip('huggingface_hub')


def test_a_bundle_is_shown_sent_and_refused(tmp_path):
    report = {
        'protocol': {
            **{'model': 'm', 'source': 'videos:drives', 'split': 'validation', 'clips': 3},
            **{'start_frame': 0, 'window': 'first', 'stride': 3, 'fps': 5.67, 'size': [64, 128]},
            **{'label_size': [64, 128], 'context_frames': 4, 'horizon': 4, 'last': False},
            **{'seed': 0, 'sampler': 'heun', 'sampler_steps': 5, 'sampler_grid': 'even'},
            **{'guidance': 0.0, 'guidance_channels': 0, 'channels': 0, 'context_noise': 0.0},
            **{'target': [], 'context': [], 'evals': {}, 'name': '', 'departures': []},
            **{'dataset': '', 'contents': ''},
        },
        'overall': {'re2pix': {'psnr': 17.5, 'miou': None}, 'copy_last': {'psnr': 14.0}},
    }
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'metrics.json').write_text(json.dumps({'': report}))
    given = ['tiny/head', 'hf:owner/head']
    scored = [*given, '--license=apache-2.0', f'--scores={tmp_path}/run']
    with hub_server.serving() as hub:
        found = outcomes(
            'push',
            {
                'shown': [*scored, '--dry_run'],
                'sent': scored,
                'no bundle': ['nosuch', 'hf:owner/head'],
                'no reference': ['tiny/head', 'owner/head'],
                'no scores': [*given, f'--scores={tmp_path}'],
            },
            HF_ENDPOINT=hub.url,
            HF_HUB_CACHE=str(tmp_path / 'cache'),
            HF_HUB_DISABLE_XET='1',
            HF_TOKEN='hf_of_the_test',
        )
        files = hub.files('owner/head', 'main')[1]
    status, out, err = found['shown']
    assert status == 0 and '4 files' in out and 'would go to hf:owner/head' in out, err
    status, out, err = found['sent']
    assert status == 0 and f'there as hf:owner/head@{hub.heads["owner/head"]["main"]}' in out
    meta = yaml.safe_load(files['README.md'].decode().split('---\n')[1])
    assert meta['license'] == 'apache-2.0'
    result = meta['model-index'][0]['results'][0]
    assert 'on 3 clips of videos:drives, split validation' in result['dataset']['name']
    assert result['metrics'] == [{'type': 'psnr', 'value': 17.5}]
    for name, said in (
        ('no bundle', 'error: nosuch: no such model'),
        ('no reference', 'error: owner/head: expected "hf:owner/repo"'),
        ('no scores', f'error: {tmp_path}: no metrics.json there; give a --workdir of re2pix'),
    ):
        status, out, err = found[name]
        assert status == 2 and err.startswith(said) and err.count('\n') == 1, err
    (tmp_path / 'copy').mkdir()
    for name, data in files.items():
        (tmp_path / 'copy' / name).write_bytes(data)
    assert bundles.digest(tmp_path / 'copy') == bundles.digest('tiny/head')
