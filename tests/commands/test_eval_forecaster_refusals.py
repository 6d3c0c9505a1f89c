"""What stage 1's evaluation leaves out or refuses: in one line, before anything runs."""

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out, tables
from re2pix_jax.heads.dpt import DPTHead
from tests.commands import stage1
from tests.commands.stage1 import config
from tests.commands.test_predict import stirred
from tests.conftest import MICRO, SIZE, load_config, random_variables
from tests.running import outcomes


@pytest.fixture(scope='module')
def source(micro_bundles):
    return f'records:{micro_bundles}/clips'


@pytest.fixture(scope='module')
def forecaster(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix')).forecaster


@pytest.fixture(scope='module')
def heads(tmp_path_factory):
    return stage1.saved_heads(tmp_path_factory.mktemp('heads'))


@pytest.fixture(scope='module')
def others(tmp_path_factory):
    return stage1.write_others(tmp_path_factory.mktemp('others'))


def refused(forecaster, words, given):
    with pytest.raises(UserError, match=words) as error:
        held_out.evaluate(forecaster, given)
    assert '\n' not in str(error.value)


def short(forecaster, source, heads=None, **changes):
    asked = config(source, heads, terms=('short',), pictures=0, **changes)
    return held_out.evaluate(forecaster, asked)[0]['short']


def test_what_is_left_out_is_said(forecaster, heads, others):
    found = short(forecaster, others['bare'], {k: heads[k] for k in ('segmentation', 'depth')})
    assert found['overall']['forecast'].keys() == {'feature_error', 'error_ratio', 'cosine'}
    text = tables.describe(found)
    for words in ('mIoU %, moving mIoU %: ', 'depth delta1 %, '):
        assert f'left out: {words}' in text
    assert 'feature error / copy' in text and 'depth AbsRel  ' not in text


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'terms': ('soon',)}, "config.terms: 'soon' is none of short, mid, long"),
        (
            {'terms': ('long',)},
            'validation/000000: 10 frames at stride 3 that end at frame 19 would begin at -8; ask',
        ),
        ({'batch_size': 0}, 'config.batch_size = 0: expected at least 1'),
        ({'clips': -1}, 'config.clips = -1: expected at least 0'),
        ({'seed': -1}, 'config.seed = -1: expected at least 0'),
        (
            {'source': 'world', 'label_size': (64, 128)},
            r'config.label_size = \(64, 128\): labels of world have 32x64 pixels; ask for no more',
        ),
        (
            {'label_size': (64, 128)},
            r'config.label_size = \(64, 128\): labels of records:.* have 32x64 pixels; ask for no',
        ),
        ({'split': 'test'}, "no split 'test', there is train, validation"),
    ],
)
def test_what_is_wrong_is_said(forecaster, source, changes, words):
    refused(forecaster, words, config(**{'source': source, **changes}))


def test_a_field_of_view_is_between_0_and_180_degrees(forecaster, source, heads):
    asked = config(source, {'normals': heads['normals']})
    asked.evals.normals.field_of_view = 0.0
    words = 'config.evals.normals.field_of_view = 0.0: expected degrees between 0 and 180'
    refused(forecaster, words, asked)


def test_classes_are_compared_with_classes_and_metres_with_metres(
    forecaster, heads, source, others
):
    classes = heads['depth'].with_name('classes')
    for given, read, words in (
        (
            {'depth': classes},
            source,
            'config.evals.depth.head: gives ordinal classes, and the depth of records:.* is metres',
        ),
        (
            {'depth': heads['depth']},
            others['classes'],
            'config.evals.depth.head: gives metres, and the depth of records:.* is ordinal classes',
        ),
        (
            {'normals': heads['normals']},
            others['classes'],
            'config.evals.normals.head: the depth of records:.* is ordinal classes, and normals',
        ),
    ):
        refused(forecaster, words, config(read, given))
    found = short(forecaster, others['classes'], {'depth': classes})
    clips, errors = stage1.Changed('classes'), []
    for index in range(2):
        clip = clips.read(index, windows.target_window(19, 5, 3))
        features = forecaster.features(forecaster.encode(clip['frames'][None])[:, -1:])
        truth = clip['depth'][-1].astype(float)
        read = bundles.load(classes).depth(features, SIZE)
        distance = abs(np.asarray(read, float)[0, 0] - truth)
        errors.append((distance[truth > 0] / truth[truth > 0]).mean())
    assert found['overall']['truth']['abs_rel'] == pytest.approx(np.mean(errors), rel=1e-6)


def test_metres_and_classes_are_not_compared_by_the_evals_of_evaluate_either(
    forecaster, heads, others
):
    asked = load_config('evaluate')
    asked.update(source=others['classes'], clips=2, horizon=2, batch_size=2, workers=0)
    asked.evals.depth.head = str(heads['depth'])
    words = 'config.evals.depth.head: gives metres, and the depth of records:.* is ordinal classes'
    refused(forecaster, words, asked)


@pytest.mark.long
def test_depth_smaller_than_the_labels_is_refused_where_it_is_needed(forecaster, heads, others):
    """At the size of the frames, too, which the config asks for when it says nothing."""
    words = (
        r'config.label_size = \(32, 64\): depth maps of records:.* have 16x32 pixels; '
        'ask for no more'
    )
    for name in ('depth', 'normals'):
        refused(forecaster, words, config(others['half'], {name: heads[name]}))
    found = short(forecaster, others['half'], {'segmentation': heads['segmentation']})
    assert found['overall']['forecast']['miou'] is not None
    found = short(forecaster, others['half'], {'depth': heads['depth']}, label_size=(16, 32))
    assert found['overall']['forecast']['abs_rel'] > 0


def test_a_head_for_another_encoder_is_refused(forecaster, source, tmp_path):
    net = DPTHead(classes=19, **MICRO['head'])
    narrow = stage1.head('segmentation').replace(
        params=random_variables(net, np.zeros((1, 4, 8, 64), np.float32))
    )
    ours = bundles.identity(forecaster.encoder)
    theirs = bundles.identity(bundles.load('tiny/forecaster').encoder)
    own = stage1.head('segmentation')
    for name, head in (
        ('narrow', narrow),
        ('theirs', own.replace(encoder=theirs)),
        ('ours', own.replace(encoder=ours)),
    ):
        bundles.save(tmp_path / name, head)
    for name, words in (
        ('narrow', 'takes features of 64 channels, the encoder gives 96; use a head'),
        ('theirs', f'was trained on another encoder .{theirs[:12]}. than this one'),
    ):
        asked = config(source, {'segmentation': tmp_path / name})
        refused(forecaster, f'config.evals.segmentation.head: {words}', asked)
    found = short(forecaster, source, {'segmentation': tmp_path / 'ours'}, clips=1)
    assert found['overall']['forecast']['miou'] is not None
    words = 'reads segmentation; expected a head that reads depth'
    refused(forecaster, words, config(source, {'depth': tmp_path / 'ours'}))


def test_mistakes_end_the_command_in_one_line(micro_bundles, source, others, tmp_path):
    part, head = bundles.load(micro_bundles / 'forecaster'), bundles.load(micro_bundles / 'head')
    fewer = {name: getattr(part.principal, name)[:20] for name in ('components', 'variance')}
    bundles.save(tmp_path / 'fewer', part.replace(principal=part.principal.replace(**fewer)))
    bundles.save(tmp_path / 'stranger', head.replace(encoder='0123456789abcdef' * 4))
    fixed = [
        '--config=eval_forecaster',
        f'--config.model={micro_bundles}/forecaster',
        f'--config.source={source}',
        '--config.clips=2',
        '--config.batch_size=2',
        '--config.workers=0',
        '--config.pictures=0',
        '--config.evals.depth.head=',
        '--config.evals.normals.head=',
        f'--config.evals.segmentation.head={micro_bundles}/head',
        "--config.terms=('short',)",
    ]
    mistakes = {
        'components': (
            [f'--config.model={tmp_path}/fewer'],
            f'error: {tmp_path}/fewer: its parts do not fit: the encoder gives 96 channels, the '
            'principal components turn 96 into 20, the forecaster takes 32',
        ),
        'encoder': (
            [f'--config.evals.segmentation.head={tmp_path}/stranger'],
            'error: config.evals.segmentation.head: was trained on another encoder (0123456789ab)',
        ),
        'labels': (
            ['--config.label_size=(64,128)'],
            'error: config.label_size = (64, 128): labels of records:',
        ),
        'depth': (
            [f'--config.evals.depth.head={micro_bundles}/head'],
            f"error: config.evals.depth.head = '{micro_bundles}/head': reads segmentation; expect",
        ),
        'encoded': (
            [f'--config.source=encoded:{tmp_path}'],
            f'error: config.source = encoded:{tmp_path}: encoded clips hold neither',
        ),
        'training': (
            ['--config=forecaster:tiny'],
            'error: ',
        ),
    }
    commands = {
        name: [*fixed, *changes, f'--workdir={tmp_path}/{name}_out']
        for name, (changes, _) in mistakes.items()
    }
    commands['training'] = ['--config=forecaster:tiny', f'--workdir={tmp_path}/training_out']
    bare = [f'--config.source={others["bare"]}', f'--workdir={tmp_path}/bare_out']
    commands['bare'] = [*fixed, *bare]
    found = outcomes('evaluate', commands)
    for name, (_, words) in mistakes.items():
        status, _, err = found[name]
        assert status == 2 and err.startswith(words) and err.count('\n') == 1, (name, err)
        assert not (tmp_path / f'{name}_out').exists()
    assert 'it describes something else; give --config=evaluate' in found['training'][2]
    status, out, err = found['bare']
    assert status == 0, err
    assert 'left out: mIoU %, moving mIoU %: ' in out and 'left out: depth delta1 %' in out
    assert 'feature error / copy' in out
