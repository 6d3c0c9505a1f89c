"""Stage 1 by its protocol: every number against a plain recomputation, whatever the batch size and the number of devices."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from re2pix_jax import weights
from re2pix_jax.clips import sampling
from re2pix_jax.clips.datasets import writing
from re2pix_jax.clips.datasets.world import World
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import forecaster as evaluation
from re2pix_jax.heads import Head
from re2pix_jax.heads.dpt import DPTHead
from tests.commands import outcomes
from tests.conftest import MICRO, SIZE, load_config, random_variables
from tests.test_predict import stirred

CLIPS = 5


def config(source, **changes):
    """configs/eval_forecaster.py with little work, in this process."""
    found = load_config('eval_forecaster')
    with found.ignore_type():
        found.update({'source': source, 'clips': CLIPS, 'batch_size': 2, 'workers': 0, 'pictures': 1, **changes})
    return found


@pytest.fixture(scope='module')
def source(micro_bundles):
    return f'records:{micro_bundles}/clips'


@pytest.fixture(scope='module')
def forecaster(micro_bundles):
    return stirred(weights.load(micro_bundles / 're2pix')).forecaster


@pytest.fixture(scope='module')
def heads(forecaster):
    made = {}
    for reads, classes in (('segmentation', 19), ('depth', 16), ('normals', 3)):
        net = DPTHead(classes=classes, **MICRO['head'])
        params = random_variables(net, np.zeros((1, 4, 8, 96), np.float32))
        made[reads] = Head(params=params, net=net, reads=reads, depth_range=(1.0, 100.0) if reads == 'depth' else None)
    return made


@pytest.fixture(scope='module')
def report(forecaster, heads, source):
    return evaluation.evaluate(forecaster, heads, config(source))


def by_hand(forecaster, heads, term):
    """Every method's components, the truth and the labels of the clips, one at a time and without jit's help."""
    steps = sampling.TERMS[term]
    window = sampling.target_window(19, 4 + steps, 3)
    world, found = World('validation', CLIPS, 22, SIZE), []
    for index in range(CLIPS):
        clip = world.read(index, window)
        components = forecaster.encode(clip['frames'][None])
        forecast = forecaster.forecast(components[:, :4], steps)[:, -1:]
        found.append(({'forecast': forecast, 'copy_last': components[:, 3:4], 'oracle': components[:, -1:]}, clip))
    return found


@pytest.mark.parametrize('term', ['short', 'mid'])
def test_the_scores_by_hand(forecaster, heads, report, term):
    clips = by_hand(forecaster, heads, term)
    for method in evaluation.METHODS:
        scores = report[0]['terms'][term][method]
        labels = np.concatenate([clip['labels'][-1].ravel() for _, clip in clips])
        read = np.concatenate([
            np.asarray(heads['segmentation'].labels(forecaster.features(parts[method]), SIZE)).ravel() for parts, _ in clips])
        matrix = confusion_matrix(labels[labels < 255], read[labels < 255], labels=range(19)).astype(float)
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        present = matrix.sum(1) > 0
        iou = np.diag(matrix)[present] / union[present]
        assert scores['segmentation']['miou'] == pytest.approx(iou.mean(), abs=1e-6)
        moving = [value for value, k in zip(iou, np.flatnonzero(present), strict=True) if k >= 11]
        assert scores['segmentation']['moving_miou'] == pytest.approx(np.mean(moving), abs=1e-6)
        error = [np.asarray(parts[method] - parts['oracle'], np.float64) for parts, _ in clips]
        smooth = [np.where(abs(e) < 0.1, e**2 / 0.2, abs(e) - 0.05).mean() for e in error]
        assert scores['smooth_l1'] == pytest.approx(np.mean(smooth), rel=1e-4, abs=1e-7)
        rel = []
        for parts, clip in clips:
            depth = np.asarray(heads['depth'].depth(forecaster.features(parts[method]), SIZE))[0, 0]
            truth = clip['depth'][-1].clip(0, 655.35)
            rel.append((abs(depth - truth) / np.maximum(truth, 1e-9))[truth > 0].mean())
        assert scores['depth']['abs_rel'] == pytest.approx(np.mean(rel), rel=2e-3)  # prepared depth is rounded to centimetres
        assert 0 < scores['normals']['mean'] < 180
    assert report[0]['terms'][term]['oracle']['smooth_l1'] == 0
    assert report[0]['terms'][term]['oracle']['cosine'] == pytest.approx(1, abs=1e-6)


def assert_close(one, other):
    one, other = (dict(jax.tree_util.tree_flatten_with_path(found['terms'])[0]) for found in (one, other))
    assert one.keys() == other.keys()
    for path in one:
        assert one[path] == pytest.approx(other[path], rel=1e-4, abs=1e-5), path


def test_batch_size_does_not_matter(forecaster, heads, source, report):
    short = {'terms': {'short': report[0]['terms']['short']}}
    assert_close(evaluation.evaluate(forecaster, heads, config(source, batch_size=3, terms=('short',)))[0], short)
    fewer = evaluation.evaluate(forecaster, heads, config(source, clips=4, batch_size=3, terms=('short',)))[0]
    assert fewer['protocol']['clips'] == 4
    assert fewer['terms']['short']['copy_last']['smooth_l1'] != report[0]['terms']['short']['copy_last']['smooth_l1']


def test_the_world_needs_no_preparation(forecaster, report, source):
    found, _ = evaluation.evaluate(forecaster, {}, config('world', terms=('short',)))
    assert found['terms']['short']['copy_last']['smooth_l1'] == pytest.approx(report[0]['terms']['short']['copy_last']['smooth_l1'])


def test_what_is_left_out_is_said(forecaster, heads, source, tmp_path):
    class Bare(World):
        def read(self, index, indices, labels=True):
            clip = super().read(index, indices)
            return {**clip, 'labels': np.full_like(clip['labels'], 255), 'depth': np.zeros_like(clip['depth'])}

    writing.write_frames(tmp_path / 'bare', {'validation': Bare('validation', 2, 22, SIZE)})
    heads = {'segmentation': heads['segmentation'], 'depth': heads['depth']}
    found, _ = evaluation.evaluate(forecaster, heads, config(f'records:{tmp_path}/bare', terms=('short',)))
    assert found['terms']['short']['forecast']['segmentation'] is None and found['terms']['short']['forecast']['smooth_l1'] > 0
    text = evaluation.describe(found)
    for words in ('angular errors: no head given', 'mIoU: split validation of', 'depth errors: split validation of'):
        assert f'left out: {words}' in text
    assert 'feature SmoothL1' in text and 'AbsRel' not in text


def test_the_text_and_the_pictures(report):
    text = evaluation.describe(report[0])
    for words in ('short-term: model on 5 clips of records:', '4 context frames at stride 3, the frame 1 step later',
                  'the frame 3 steps later', 'moving-object mIoU %', 'depth delta1 %', 'normals under 11.25 degrees %'):
        assert words in text
    for term, pictures in report[1].items():
        assert len(pictures) == 1
        caption, sheet = evaluation.sheet(pictures[0], term)
        assert caption.startswith(f'{term}, records:') and sheet.dtype == np.uint8 and sheet.std() > 10


def test_eight_devices_and_the_command(micro_bundles, source, tmp_path):
    lines = [f'--config=configs/eval_forecaster.py --config.model={micro_bundles}/forecaster --config.source={source} --config.clips=5',
             f'--config.heads.segmentation={micro_bundles}/head --config.heads.depth= --config.heads.normals=',
             '--config.workers=0 --config.pictures=2 --config.terms=("short",)']
    command = f'{" ".join(lines)} --config.batch_size=8 --workdir={tmp_path}/eight'.split()
    status, out, err = outcomes('evaluate', {'eight': command}, (), XLA_FLAGS='--xla_force_host_platform_device_count=8')['eight']
    assert status == 0 and 'short-term: ' in out, err
    assert 'data:image/png;base64,' in (tmp_path / 'eight' / 'pictures.html').read_text()
    heads = {'segmentation': weights.load(micro_bundles / 'head')}
    one = evaluation.evaluate(weights.load(micro_bundles / 'forecaster'), heads, config(source, terms=('short',)))
    assert_close(json.loads((tmp_path / 'eight' / 'metrics.json').read_text()), json.loads(json.dumps(one[0])))


@pytest.mark.parametrize(('changes', 'words'), [
    ({'terms': ('soon',)}, "config.terms: 'soon' is none of short, mid, long"), ({'terms': ()}, 'config.terms is empty'),
    ({'terms': ('long',)}, 'clip0*: 10 frames at stride 3 that end at frame 19 would begin at -8; ask for fewer'),
    ({'batch_size': 0}, 'config.batch_size = 0: expected at least 1'), ({'clips': -1}, 'config.clips = -1: expected at least 0'),
    ({'label_size': (64, 128)}, r'config.label_size = \(64, 128\): labels of records:.* have 32x64 pixels; ask for no more'),
    ({'split': 'test'}, "no split 'test', there is train, validation")])
def test_what_is_wrong_is_said(forecaster, source, changes, words):
    with pytest.raises(UserError, match=words.replace('clip0*', 'validation/000000')) as error:
        evaluation.evaluate(forecaster, {}, config(source, **changes))
    assert '\n' not in str(error.value)


def test_a_head_for_another_encoder_is_refused(forecaster, source):
    net = DPTHead(classes=19, **MICRO['head'])
    head = Head(params=random_variables(net, np.zeros((1, 4, 8, 64), np.float32)), net=net)
    words = "config.heads.segmentation: takes features of 64 channels, the forecaster's encoder gives 96; use a head"
    with pytest.raises(UserError, match=words) as error:
        evaluation.evaluate(forecaster, {'segmentation': head}, config(source))
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='config.heads.depth: reads segmentation; expected a head that reads depth'):
        evaluation.evaluate(forecaster, {'depth': head}, config(source))
