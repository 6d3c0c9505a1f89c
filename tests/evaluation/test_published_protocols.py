"""Named protocols: what they set, what departs from them, and that their scores never share a
table; labels that one frame of a clip has.
"""

import json

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.data import loader
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out, protocol, published, tables
from re2pix_jax.evaluation.study import numbers, page
from tests.commands.test_evaluate import config
from tests.commands.test_predict import stirred
from tests.conftest import SIZE, load_config
from tests.data import layouts
from tests.evaluation.studies import point, points
from tests.running import outcomes


@pytest.fixture(scope='module')
def cityscapes(tmp_path_factory):
    return layouts.cityscapes(tmp_path_factory.mktemp('raw') / 'cityscapes')


@pytest.fixture(scope='module')
def report(micro_bundles, cityscapes):
    """Two snippets, from frame 1 on, six frames ahead."""
    model = stirred(bundles.load(micro_bundles / 're2pix'))
    asked = config(probe=False, clips=256, horizon=4, protocol='re2pix-cityscapes')
    asked.evals = {name: dict(asked.evals[name]) for name in ('image', 'segmentation')}
    asked.update(source=f'cityscapes:{cityscapes}', label_size=SIZE)
    asked.methods = ('re2pix', 'copy_last', 'truth')
    return held_out.evaluate(model, asked)[0]['']


@pytest.mark.parametrize('name', ['evaluate', 'eval_forecaster'])
def test_what_counts_as_unset_is_what_the_configs_come_with(name):
    found = load_config(name)
    assert all(tuple_of(found[field]) in values for field, values in published.UNSET.items())


def tuple_of(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('name', published.PROTOCOLS)
@pytest.mark.parametrize('of', ['evaluate', 'eval_forecaster'])
def test_a_protocol_sets_what_the_config_leaves_as_it_comes(of, name):
    asked = load_config(of)
    asked.protocol, asked.seed = name, 3
    found, expected = published.applied(asked), published.PROTOCOLS[name]
    assert (found.split, found.start, found.clips) == ('validation', expected.start, 0)
    assert (found.horizon, found.label_size) == (expected.horizon, expected.label_size)
    assert found.terms == {1: ('short',), 3: ('mid',)}.get(expected.horizon, ())
    assert found.seed == 3 and asked.clips == 256
    asked.clips, asked.horizon, asked.label_size = 5, 9, (8, 16)
    found = published.applied(asked)
    assert (found.clips, found.horizon, found.label_size) == (5, 9, (8, 16))


def test_one_pass_over_cityscapes_gives_mid_term_labels_and_ten_frames(report):
    about = report['protocol']
    assert about['start_frame'] == 1 and about['horizon'] == 6 and about['clips'] == 2
    known = [k for k, step in enumerate(report['steps']) if step['re2pix']['miou'] is not None]
    assert known == [2]  # frame 1 + 3 * (3 + 3) = 19
    step = report['steps'][2]
    for method in ('re2pix', 'copy_last', 'truth'):
        for column in ('miou', 'moving_miou'):
            assert report['overall'][method][column] == step[method][column]
    assert all('psnr' in step['re2pix'] for step in report['steps'])


def test_a_study_of_such_clips_has_a_column_of_labels(report):
    one = point('full', 0, report)
    shown = numbers.read('miou', one, 're2pix', 6)
    assert shown == pytest.approx(100 * report['steps'][2]['re2pix']['miou'])
    known = [step['re2pix']['psnr'] for step in report['steps']]
    assert numbers.read('psnr', one, 're2pix', 6) == pytest.approx(np.mean(known))
    assert numbers.read('abs_rel', one, 're2pix', 6) is None


def test_departures_stand_in_the_report(report):
    about = report['protocol']
    assert about['name'] == 're2pix-cityscapes' and about['dataset'] == 'cityscapes'
    assert about['departures'] == [
        '2 of 500 clips',
        'frames of 32x64 instead of 256x512',
        'labels of 32x64 instead of 1024x2048',
    ]
    text = tables.describe(json.loads(json.dumps(report)))
    assert text.startswith('protocol re2pix-cityscapes: ours [O]')
    assert 'departs from it: 2 of 500 clips; ' in text.splitlines()[1]
    assert about['evals']['segmentation']['network'] == "the model's own head"
    assert len(about['evals']['segmentation']['sha256']) == 64


def test_without_departures_nothing_is_said_of_them():
    expected = published.PROTOCOLS['vista-nuscenes-25']
    asked = load_config('evaluate')
    asked.protocol = 'vista-nuscenes-25'
    measured = {
        'split': 'validation',
        'window': 'keyframes',
        'start_frame': 0,
        'stride': 1,
        'context_frames': 1,
        'horizon': 24,
        'size': [576, 1024],
        'label_size': [576, 1024],
        'fps': 10.0,
        'clips': expected.clips,
        'evals': {'fid': {'sha256': published.INCEPTION + 'f' * 56}},
    }
    assert published.departures(asked, measured, 'nuscenes') == []
    found = measured | {'fps': 12.0, 'evals': {'fid': {'sha256': 'a' * 64}}}
    assert published.departures(asked, found, 'records') == [
        'records instead of the files as published',
        '12 instead of 10 frames per second',
        'fid by network aaaaaaaaaaaa instead of 6726825d...',
    ]


def test_unknown_names_and_other_datasets_are_refused(micro_bundles):
    model = bundles.load(micro_bundles / 're2pix')
    with pytest.raises(UserError, match="config.protocol = 'vista': expected one of dino-foresig"):
        held_out.evaluate(model, config(probe=False, protocol='vista'))
    words = "'re2pix-cityscapes' is about cityscapes, and config.source = 'world' holds world; give"
    with pytest.raises(UserError, match=words):
        held_out.evaluate(model, config(probe=False, protocol='re2pix-cityscapes', start=1))


def test_two_protocols_in_one_study_are_refused(tmp_path):
    found = points(full=[(0.5, 5.0)], baseline=[(0.4, 9.0)])
    found.append(point('full', 0, found[0].report, final=False, step=50))
    page.write(tmp_path, found, (2,), 10)
    for index, name in enumerate(('dino-foresight-short', 'dino-foresight-mid')):
        about = found[index].report['protocol']
        about |= {'name': name, 'departures': [], 'horizon': 1 + 2 * index}
    words = (
        'full, seed 0 was judged by dino-foresight-short and baseline, seed 0 by '
        r'dino-foresight-mid: scores of different protocols .* horizon \(1 against 3\), name'
    )
    with pytest.raises(UserError, match=words) as error:
        page.write(tmp_path, found, (2,), 10)
    assert '\n' not in str(error.value)


def test_what_is_judged_may_differ_and_what_judges_may_not(report):
    one = report['protocol']
    alike = one | {'model': 'other', 'seed': 1, 'guidance': 0.4, 'sampler': 'heun', 'channels': 8}
    assert protocol.differences(one, alike) == []
    protocol.check_alike({'a': one, 'b': alike})
    for change in ({'clips': 3}, {'size': [1, 2]}, {'source': 'world'}, {'departures': []}):
        assert len(protocol.differences(one, one | change)) == 1
    evals = one['evals'] | {'segmentation': {'network': 'x', 'sha256': '0' * 64}}
    (found,) = protocol.differences(one, one | {'evals': evals})
    assert found.startswith('segmentation sha256 (')
    here, there = one | {'contents': 'c', 'source': 'a'}, one | {'contents': 'c', 'source': 'b'}
    assert protocol.differences(here, there) == []  # one folder under two names


def test_the_compare_command(report, tmp_path):
    other = json.loads(json.dumps(report))
    other['protocol'] |= {'name': 'dino-foresight-mid', 'horizon': 3}
    for name, found in (('a', {'': report}), ('b', {'': report}), ('c', {'mid': other})):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metrics.json').write_text(json.dumps(found))
    folder = lambda *names: [str(tmp_path / name) for name in names]
    found = outcomes(
        'compare', {'alike': folder('a', 'b'), 'not': folder('a', 'c'), 'none': folder('a', 'x')}
    )
    status, out, err = found['alike']
    assert status == 0 and f'{tmp_path}/a' in out and f'{tmp_path}/b' in out, err
    (line,) = [line for line in out.splitlines() if line.startswith('mIoU %')]
    overall = report['overall']
    shown = [f'{100 * overall[method]["miou"]:.1f}' for method in ('re2pix', 're2pix', 'copy_last')]
    assert line.split()[2:5] == shown
    about = report['protocol']
    assert f'{tmp_path}/b: {about["model"]}; {about["sampler_steps"]} sampler steps (' in out
    status, out, err = found['not']
    assert status == 2 and not out and err.count('\n') == 1
    assert 'judged by re2pix-cityscapes and ' in err and 'by dino-foresight-mid: scores of' in err
    assert found['none'][0] == 2 and 'x: no metrics.json there' in found['none'][2]


def test_what_differs_from_model_to_model_has_a_column_each(report):
    """As their VAEs do: the first one's is not shown as if it were that of all."""
    other = json.loads(json.dumps(report))
    other['overall']['copy_last']['psnr'] += 1
    header = lambda text: text.split('over all steps')[1].split('\n---')[0]
    alike = header(tables.joined({'a': report, 'b': report}))
    differ = header(tables.joined({'a': report, 'b': other}))
    assert alike.count('copy') == 1 and differ.count('copy') == 2
    assert alike.count('truth') == differ.count('truth') == 1


def test_windows_from_every_key_frame_of_nuscenes(tmp_path):
    """Key frames are every sixth of thirty; 25 native frames are there from frames 0 on alone."""
    raw = layouts.nuscenes(tmp_path / 'raw', ('scene-0003', 'scene-0012'))
    data = {
        'sources': (f'nuscenes:{raw}',),
        'split': 'validation',
        'size': (16, 32),
        'strides': (1,),
        'window': 'keyframes',
        'labels': False,
    }
    for frames, starts in ((25, [0]), (13, [0, 6, 12]), (30, [0])):
        batches = loader.create({**data, 'frames': frames}, 8, training=False)
        assert batches.clips == 2 * len(starts)
        batch = next(batches)
        shown = [layouts.numbers(clip) for clip in batch['frames']]
        expected = [list(range(first, first + frames)) for first in starts]
        assert shown == 2 * expected
        name = batches.record_name(batch['record'][-1])
        assert name.endswith(f'scene-0012/{starts[-1]:04d}')
    with pytest.raises(UserError, match='data.window = keyframes: expected "start", "native", "ta'):
        loader.create({**data, 'frames': 5}, 2, training=True)
    with pytest.raises(UserError, match='world: does not tell key frames'):
        loader.create({**data, 'sources': ('world',), 'frames': 5}, 2, training=False)


def test_a_protocol_of_key_frames_counts_native_frames(micro_bundles):
    model = bundles.load(micro_bundles / 're2pix')
    asked = config(probe=False, protocol='vista-nuscenes-25', horizon=4, clips=256)
    data = held_out.data_of(model, published.applied(asked))
    assert (data.window, data.strides, data.frames) == ('keyframes', (1,), 4 + 24)
