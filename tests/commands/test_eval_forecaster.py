"""Stage 1 by its protocol: every number against a plain recomputation, whatever the batch size and
the number of devices.
"""

import json
import pathlib

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from re2pix_jax import bundles
from re2pix_jax.convert import dino_foresight, dpt
from re2pix_jax.data import windows
from re2pix_jax.data.sources.world import World
from re2pix_jax.evaluation import held_out, tables
from tests.commands import stage1
from tests.commands.stage1 import CLIPS, config
from tests.commands.test_predict import stirred
from tests.conftest import SIZE
from tests.running import environment, outcomes

GOLDEN = pathlib.Path(__file__).parents[2].parent / 'shared' / 'golden' / 'dino_foresight_small'
METHODS = ('forecast', 'copy_last', 'truth')


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
def evaluated(forecaster, heads, source):
    """({term: report}, {term: pictures})"""
    return held_out.evaluate(forecaster, config(source, heads))


def by_hand(forecaster, term):
    """Every method's components, and the clip, one clip at a time and without jit's help."""
    steps = windows.TERMS[term]
    window = windows.target_window(19, 4 + steps, 3)
    world, found = World('validation', CLIPS, 22, SIZE), []
    for index in range(CLIPS):
        clip = world.read(index, window)
        components = forecaster.encode(clip['frames'][None])
        forecast = forecaster.forecast(components[:, :4], steps)[:, -1:]
        parts = {'forecast': forecast, 'copy_last': components[:, 3:4], 'truth': components[:, -1:]}
        found.append((parts, clip))
    return found


def normals_by_hand(depth, view=60.0):
    """float64 [H, W, 3]: per pixel the plane through it and the nearer neighbour, in inverse depth,
    along either axis; 0 where unknown.
    """
    height, width = depth.shape
    focal = width / 2 / np.tan(np.radians(view / 2))
    inverse = np.float32(1) / np.where(depth > 0, depth, 1).astype(
        np.float32
    )  # which of two is nearer, rounding decides
    point = lambda y, x: (
        depth[y, x] * np.array([(x + 0.5 - width / 2) / focal, (y + 0.5 - height / 2) / focal, 1])
    )
    normals = np.zeros((height, width, 3))
    for y, x in np.argwhere(depth > 0):
        sides = []
        for neighbours in (((y, x - 1), (y, x + 1)), ((y - 1, x), (y + 1, x))):
            there = [
                (v, u)
                for v, u in neighbours
                if 0 <= v < height and 0 <= u < width and depth[v, u] > 0
            ]
            if there:
                sides.append(
                    point(*min(there, key=lambda place: abs(inverse[place] - inverse[y, x])))
                    - point(y, x)
                )
        if len(sides) == 2:
            normal = np.cross(*sides)
            normals[y, x] = (
                -np.sign(normal @ point(y, x)) * normal / np.linalg.norm(normal)
            )  # towards the camera
    return normals


@pytest.mark.parametrize('term', ['short', 'mid'])
def test_the_scores_by_hand(forecaster, heads, evaluated, term):
    clips = by_hand(forecaster, term)
    opened = {name: bundles.load(path) for name, path in heads.items()}
    # As they were prepared: to the centimetre.
    metres = [clip['depth'][-1].astype(float) for _, clip in clips]
    depths = [np.where(depth > 0, np.rint(depth * 100).clip(1, 65535) / 100, 0) for depth in metres]
    true_normals = [normals_by_hand(depth) for depth in depths]
    labels = np.concatenate([clip['labels'][-1].ravel() for _, clip in clips])
    overall = evaluated[0][term]['overall']
    assert set(overall) == {*METHODS, 'mean_map'}
    smooth = {}
    for method in METHODS:
        scores = overall[method]
        features = [forecaster.features(parts[method]) for parts, _ in clips]
        read = np.concatenate(
            [np.asarray(opened['segmentation'].labels(x, SIZE)).ravel() for x in features]
        )
        known = labels < 255
        matrix = confusion_matrix(labels[known], read[known], labels=range(19)).astype(float)
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        present = matrix.sum(1) > 0
        iou = np.diag(matrix)[present] / union[present]
        assert scores['miou'] == pytest.approx(iou.mean(), abs=1e-6)
        moving = [value for value, k in zip(iou, np.flatnonzero(present), strict=True) if k >= 11]
        assert scores['moving_miou'] == pytest.approx(np.mean(moving), abs=1e-6)
        error = [np.asarray(parts[method] - parts['truth'], np.float64) for parts, _ in clips]
        smooth[method] = np.mean(
            [np.where(abs(e) < 0.1, e**2 / 0.2, abs(e) - 0.05).mean() for e in error]
        )
        rel, angles = [], []
        for x, truth, normals in zip(features, depths, true_normals, strict=True):
            depth = np.asarray(opened['depth'].depth(x, SIZE), np.float64)[0, 0]
            rel.append((abs(depth - truth) / np.maximum(truth, 1e-9))[truth > 0].mean())
            read = np.asarray(opened['normals'].normals(x, SIZE), np.float64)[0, 0]
            known = (normals != 0).any(-1)
            angles.append(np.degrees(np.arccos(np.clip((read * normals).sum(-1)[known], -1, 1))))
        assert scores['abs_rel'] == pytest.approx(np.mean(rel), rel=1e-6)
        means = [frame.mean() for frame in angles]
        assert scores['angle_mean'] == pytest.approx(np.mean(means), rel=1e-5)
        medians = [np.sort(frame)[(len(frame) - 1) // 2] for frame in angles]
        assert scores['angle_median'] == pytest.approx(np.mean(medians), rel=1e-5)
        under = [(frame < 30).mean() for frame in angles]
        assert scores['under_30'] == pytest.approx(np.mean(under), abs=1e-3)
    forecast = overall['forecast']
    assert forecast['feature_error'] == pytest.approx(smooth['forecast'], rel=1e-4)
    assert overall['copy_last']['feature_error'] == pytest.approx(smooth['copy_last'], rel=1e-4)
    truths = np.concatenate([np.asarray(parts['truth'], np.float64) for parts, _ in clips])
    distance = abs(truths - truths.mean(0))  # no head reads the mean map
    mean_map = np.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean()
    assert overall['mean_map']['feature_error'] == pytest.approx(mean_map, rel=1e-4)
    ratio = smooth['forecast'] / smooth['copy_last']
    assert forecast['error_ratio'] == pytest.approx(ratio, rel=1e-4)
    assert -1 < forecast['cosine'] < 1


def assert_close(one, other):
    """Two {term: report} with the same numbers."""
    assert one.keys() == other.keys()
    for term in one:
        assert one[term]['overall'].keys() == other[term]['overall'].keys()
        for method, columns in one[term]['overall'].items():
            expected = other[term]['overall'][method]
            assert columns == pytest.approx(expected, rel=1e-4, abs=1e-5), (term, method)


@pytest.mark.long
def test_batch_size_does_not_matter(forecaster, heads, source, evaluated):
    short = {'short': evaluated[0]['short']}
    asked = config(source, heads, batch_size=3, terms=('short',), pictures=0)
    assert_close(held_out.evaluate(forecaster, asked)[0], short)
    asked.clips = 4
    fewer = held_out.evaluate(forecaster, asked)[0]['short']
    assert fewer['protocol']['clips'] == 4
    assert fewer['overall']['copy_last'] != short['short']['overall']['copy_last']


def test_the_world_needs_no_preparation(forecaster, evaluated):
    found, _ = held_out.evaluate(forecaster, config('world', terms=('short',)))
    columns = found['short']['overall']['copy_last']
    expected = evaluated[0]['short']['overall']['copy_last']
    assert columns['feature_error'] == pytest.approx(expected['feature_error'])


def test_the_protocol_says_what_the_numbers_depend_on(evaluated, heads):
    for term, context in (('short', [7, 10, 13, 16]), ('mid', [1, 4, 7, 10])):
        protocol = json.loads(json.dumps(evaluated[0][term]['protocol']))
        assert protocol['target'] == [19] and protocol['context'] == [context]
        assert protocol['evals']['normals']['field_of_view'] == 60
        for name, path in heads.items():
            about = protocol['evals'][name]
            assert about['network'] == f'head {path}'
            assert about['sha256'] == bundles.identity(bundles.load(path))


def test_the_text_and_the_pictures(evaluated, heads):
    reports, pictures = evaluated
    text = tables.describe(reports['short'])
    for words in (
        'feature error / copy',
        f'segmentation: head {heads["segmentation"]} (sha256 ',
        'field of view 60',
        'on 5 clips of records:',
        '4 context frames and the frame 1 step later at stride 3',
        'moving mIoU %',
        'depth delta1 %',
        'normals under 11.25 degrees %',
    ):
        assert words in text, words
    assert 'the frame 3 steps later' in tables.describe(reports['mid'])
    for of_term in pictures.values():
        (picture,) = of_term
        assert 'records:' in picture.caption
        for drawn in (picture.sheet, picture.film):
            assert drawn.dtype == np.uint8 and drawn.std() > 10


@pytest.mark.long
def test_eight_devices_and_the_command(micro_bundles, source, tmp_path):
    lines = [
        f'--config=eval_forecaster --config.model={micro_bundles}/forecaster',
        f'--config.source={source} --config.clips=5 --config.workers=0 --config.pictures=2',
        f'--config.evals.segmentation.head={micro_bundles}/head --config.evals.depth.head=',
        '--config.evals.normals.head= --config.batch_size=3 --config.terms=("short",)',
    ]
    command = f'{" ".join(lines)} --workdir={tmp_path}/eight'.split()
    status, out, err = outcomes('evaluate', {'eight': command}, **environment(8))['eight']
    assert status == 0 and 'short-term: ' in out, err
    assert 'data:image/png;base64,' in (tmp_path / 'eight' / 'pictures.html').read_text()
    asked = config(source, {'segmentation': micro_bundles / 'head'}, terms=('short',))
    one = held_out.evaluate(bundles.load(micro_bundles / 'forecaster'), asked)
    found = json.loads((tmp_path / 'eight' / 'metrics.json').read_text())
    assert_close({'short': found['short']}, {'short': one[0]['short']})


@pytest.mark.long
@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the authors' files are not at {GOLDEN}")
def test_a_converted_forecaster_and_head_are_evaluated_as_they_are(tmp_path):
    bundles.save(
        tmp_path / 'forecaster', dino_foresight.convert(GOLDEN / 'dinof.ckpt', encoder_heads=3)
    )
    bundles.save(tmp_path / 'head', dpt.convert(GOLDEN / 'head_segm.ckpt'))
    command = [
        '--config=eval_forecaster',
        f'--config.model={tmp_path}/forecaster',
        '--config.clips=2',
        '--config.batch_size=2',
        '--config.workers=0',
        f'--config.evals.segmentation.head={tmp_path}/head',
        '--config.evals.depth.head=',
        '--config.evals.normals.head=',
        '--config.pictures=1',
        f'--workdir={tmp_path}/out',
    ]
    status, out, err = outcomes('evaluate', {'golden': command})['golden']
    assert status == 0 and 'mid-term: ' in out, err
    reports = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert reports['short']['protocol']['size'] == [56, 112]
    model, head = bundles.load(tmp_path / 'forecaster'), bundles.load(tmp_path / 'head')
    world = World('validation', 2, size=(56, 112))
    for term, steps in (('short', 1), ('mid', 3)):
        clips = [world.read(index, windows.target_window(19, 4 + steps, 3)) for index in range(2)]
        components = model.encode(np.stack([clip['frames'] for clip in clips]))
        forecast = model.forecast(components[:, :4], steps)[:, -1:]
        distance = abs(np.asarray(forecast - components[:, -1:], np.float64))
        smooth = np.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean()
        scores = reports[term]['overall']['forecast']
        assert scores['feature_error'] == pytest.approx(smooth, rel=1e-4)
        labels = np.stack([clip['labels'][-1:] for clip in clips])
        read = np.asarray(head.labels(model.features(forecast), (56, 112)))
        known = labels != 255
        matrix = confusion_matrix(labels[known], read[known], labels=range(19)).astype(float)
        present = matrix.sum(1) > 0
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        miou = (np.diag(matrix)[present] / union[present]).mean()
        assert scores['miou'] == pytest.approx(miou, abs=2e-3)  # a tie may fall either way
