"""Stage 1 by its protocol: every number against a plain recomputation, whatever the batch size and
the number of devices.
"""

import json
import pathlib

import jax
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from re2pix_jax import bundles
from re2pix_jax.convert import dino_foresight, dpt
from re2pix_jax.data import frame_records, records, windows
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import forecaster as evaluation
from re2pix_jax.evaluation.protocol import fingerprint
from re2pix_jax.heads import Head
from re2pix_jax.heads.dpt import DPTHead
from tests.commands.test_predict import stirred
from tests.conftest import MICRO, SIZE, load_config, random_variables
from tests.running import outcomes

CLIPS = 5
GOLDEN = pathlib.Path(__file__).parents[2].parent / 'shared' / 'golden' / 'dino_foresight_small'


def config(source, **changes):
    """configs/eval_forecaster.py with little work, in this process."""
    found = load_config('eval_forecaster')
    with found.ignore_type():
        found.update(
            {
                'source': source,
                'clips': CLIPS,
                'batch_size': 2,
                'workers': 0,
                'pictures': 1,
                **changes,
            }
        )
    return found


@pytest.fixture(scope='module')
def source(micro_bundles):
    return f'records:{micro_bundles}/clips'


@pytest.fixture(scope='module')
def forecaster(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix')).forecaster


@pytest.fixture(scope='module')
def heads(forecaster):
    made = {}
    for reads, classes in (('segmentation', 19), ('depth', 16), ('normals', 3)):
        net = DPTHead(classes=classes, **MICRO['head'])
        params = random_variables(net, np.zeros((1, 4, 8, 96), np.float32))
        made[reads] = Head(
            params=params,
            net=net,
            reads=reads,
            depth_range=(1.0, 100.0) if reads == 'depth' else None,
        )
    return made


@pytest.fixture(scope='module')
def report(forecaster, heads, source):
    return evaluation.evaluate(forecaster, heads, config(source))


class Changed(World):
    """The world with another truth: without any, with classes for depth, or with depth at half the
    size.
    """

    def __init__(self, change):
        super().__init__('validation', 2, 22, SIZE)
        self.change = change

    def depth_coding(self, index):
        return records.CLASSES if self.change == 'classes' else records.CENTIMETRES

    def read(self, index, indices, labels=True):
        clip = super().read(index, indices)
        changes = {
            'bare': lambda: {
                'labels': np.full_like(clip['labels'], 255),
                'depth': np.zeros_like(clip['depth']),
            },
            'classes': lambda: {'depth': np.ceil(clip['depth'] / 100 * 15).clip(0, 15)},
            'half': lambda: {'depth': clip['depth'][:, ::2, ::2]},
        }
        return clip | changes[self.change]()


@pytest.fixture(scope='module')
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp('others')
    for change in ('bare', 'classes', 'half'):
        frame_records.write_frames(folder / change, {'validation': Changed(change)})
    return {change: f'records:{folder}/{change}' for change in ('bare', 'classes', 'half')}


def by_hand(forecaster, heads, term):
    """Every method's components, the truth and the labels of the clips, one at a time and without
    jit's help.
    """
    steps = windows.TERMS[term]
    window = windows.target_window(19, 4 + steps, 3)
    world, found = World('validation', CLIPS, 22, SIZE), []
    for index in range(CLIPS):
        clip = world.read(index, window)
        components = forecaster.encode(clip['frames'][None])
        forecast = forecaster.forecast(components[:, :4], steps)[:, -1:]
        found.append(
            (
                {
                    'forecast': forecast,
                    'copy_last': components[:, 3:4],
                    'oracle': components[:, -1:],
                },
                clip,
            )
        )
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
def test_the_scores_by_hand(forecaster, heads, report, term):
    clips = by_hand(forecaster, heads, term)
    # As they were prepared: to the centimetre.
    metres = [clip['depth'][-1].astype(float) for _, clip in clips]
    depths = [np.where(depth > 0, np.rint(depth * 100).clip(1, 65535) / 100, 0) for depth in metres]
    true_normals = [normals_by_hand(depth) for depth in depths]
    for method in evaluation.METHODS:
        scores = report[0]['terms'][term][method]
        labels = np.concatenate([clip['labels'][-1].ravel() for _, clip in clips])
        read = np.concatenate(
            [
                np.asarray(
                    heads['segmentation'].labels(forecaster.features(parts[method]), SIZE)
                ).ravel()
                for parts, _ in clips
            ]
        )
        matrix = confusion_matrix(
            labels[labels < 255], read[labels < 255], labels=range(19)
        ).astype(float)
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        present = matrix.sum(1) > 0
        iou = np.diag(matrix)[present] / union[present]
        assert scores['segmentation']['miou'] == pytest.approx(iou.mean(), abs=1e-6)
        moving = [value for value, k in zip(iou, np.flatnonzero(present), strict=True) if k >= 11]
        assert scores['segmentation']['moving_miou'] == pytest.approx(np.mean(moving), abs=1e-6)
        error = [np.asarray(parts[method] - parts['oracle'], np.float64) for parts, _ in clips]
        smooth = [np.where(abs(e) < 0.1, e**2 / 0.2, abs(e) - 0.05).mean() for e in error]
        assert scores['smooth_l1'] == pytest.approx(np.mean(smooth), rel=1e-4, abs=1e-7)
        rel, angles = [], []
        for (parts, _), truth, normals in zip(clips, depths, true_normals, strict=True):
            features = forecaster.features(parts[method])
            depth = np.asarray(heads['depth'].depth(features, SIZE), np.float64)[0, 0]
            rel.append((abs(depth - truth) / np.maximum(truth, 1e-9))[truth > 0].mean())
            read = np.asarray(heads['normals'].normals(features, SIZE), np.float64)[0, 0]
            known = (normals != 0).any(-1)
            angles.append(np.degrees(np.arccos(np.clip((read * normals).sum(-1)[known], -1, 1))))
        assert scores['depth']['abs_rel'] == pytest.approx(np.mean(rel), rel=1e-6)
        assert scores['normals']['pixels'] == sum(map(len, angles))
        assert scores['normals']['mean'] == pytest.approx(
            np.mean([frame.mean() for frame in angles]), rel=1e-5
        )
        medians = [np.sort(frame)[(len(frame) - 1) // 2] for frame in angles]
        assert scores['normals']['median'] == pytest.approx(np.mean(medians), rel=1e-5)
        assert scores['normals']['under_30'] == pytest.approx(
            np.mean([(frame < 30).mean() for frame in angles]), abs=1e-3
        )
    assert report[0]['terms'][term]['oracle']['smooth_l1'] == 0
    assert report[0]['terms'][term]['oracle']['cosine'] == pytest.approx(1, abs=1e-6)


def assert_close(one, other):
    one, other = (
        dict(jax.tree_util.tree_flatten_with_path(found['terms'])[0]) for found in (one, other)
    )
    assert one.keys() == other.keys()
    for path in one:
        assert one[path] == pytest.approx(other[path], rel=1e-4, abs=1e-5), path


def test_batch_size_does_not_matter(forecaster, heads, source, report):
    short = {'terms': {'short': report[0]['terms']['short']}}
    assert_close(
        evaluation.evaluate(forecaster, heads, config(source, batch_size=3, terms=('short',)))[0],
        short,
    )
    fewer = evaluation.evaluate(
        forecaster, heads, config(source, clips=4, batch_size=3, terms=('short',))
    )[0]
    assert fewer['protocol']['clips'] == 4
    assert (
        fewer['terms']['short']['copy_last']['smooth_l1']
        != report[0]['terms']['short']['copy_last']['smooth_l1']
    )


def test_the_world_needs_no_preparation(forecaster, report, source):
    found, _ = evaluation.evaluate(forecaster, {}, config('world', terms=('short',)))
    assert found['terms']['short']['copy_last']['smooth_l1'] == pytest.approx(
        report[0]['terms']['short']['copy_last']['smooth_l1']
    )


def test_what_is_left_out_is_said(forecaster, heads, others):
    heads = {'segmentation': heads['segmentation'], 'depth': heads['depth']}
    found, _ = evaluation.evaluate(forecaster, heads, config(others['bare'], terms=('short',)))
    assert (
        found['terms']['short']['forecast']['segmentation'] is None
        and found['terms']['short']['forecast']['smooth_l1'] > 0
    )
    text = evaluation.describe(found)
    for words in (
        'angular errors: no head given',
        'mIoU: split validation of',
        'depth errors: split validation of',
    ):
        assert f'left out: {words}' in text
    assert 'component SmoothL1' in text and 'AbsRel' not in text


def test_the_protocol_says_what_the_numbers_depend_on(report, heads, forecaster):
    protocol = json.loads(json.dumps(report[0]['protocol']))
    assert protocol['target'] == [19]
    assert protocol['context'] == {'short': [[7, 10, 13, 16]], 'mid': [[1, 4, 7, 10]]}
    assert protocol['field_of_view'] == 60
    assert protocol['heads'].keys() == heads.keys()
    for name, head in heads.items():
        assert protocol['heads'][name]['sha256'] == fingerprint(head.params)
    assert protocol['heads']['depth']['bundle'] == 'tiny/depth'  # what the config calls it


def test_the_text_and_the_pictures(report):
    text = evaluation.describe(report[0])
    for words in (
        'component SmoothL1',
        'heads: segmentation tiny/head (sha256 ',
        'true normals for a field of view of 60 degrees',
        'short-term: model on 5 clips of records:',
        '4 context frames at stride 3, the frame 1 step later',
        'the frame 3 steps later',
        'moving-object mIoU %',
        'depth delta1 %',
        'normals under 11.25 degrees %',
    ):
        assert words in text
    for term, pictures in report[1].items():
        assert len(pictures) == 1
        caption, sheet = evaluation.sheet(pictures[0], term)
        assert (
            caption.startswith(f'{term}, records:') and sheet.dtype == np.uint8 and sheet.std() > 10
        )


def test_eight_devices_and_the_command(micro_bundles, source, tmp_path):
    lines = [
        f'--config=configs/eval_forecaster.py --config.model={micro_bundles}/forecaster '
        f'--config.source={source} --config.clips=5',
        f'--config.heads.segmentation={micro_bundles}/head --config.heads.depth= '
        '--config.heads.normals=',
        '--config.workers=0 --config.pictures=2 --config.terms=("short",)',
    ]
    command = f'{" ".join(lines)} --config.batch_size=8 --workdir={tmp_path}/eight'.split()
    status, out, err = outcomes(
        'evaluate', {'eight': command}, XLA_FLAGS='--xla_force_host_platform_device_count=8'
    )['eight']
    assert status == 0 and 'short-term: ' in out, err
    assert 'data:image/png;base64,' in (tmp_path / 'eight' / 'pictures.html').read_text()
    heads = {'segmentation': bundles.load(micro_bundles / 'head')}
    one = evaluation.evaluate(
        bundles.load(micro_bundles / 'forecaster'), heads, config(source, terms=('short',))
    )
    assert_close(
        json.loads((tmp_path / 'eight' / 'metrics.json').read_text()),
        json.loads(json.dumps(one[0])),
    )


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'terms': ('soon',)}, "config.terms: 'soon' is none of short, mid, long"),
        ({'terms': ()}, 'config.terms is empty'),
        (
            {'terms': ('long',)},
            'clip0*: 10 frames at stride 3 that end at frame 19 would begin at -8; ask for fewer',
        ),
        ({'batch_size': 0}, 'config.batch_size = 0: expected at least 1'),
        ({'clips': -1}, 'config.clips = -1: expected at least 0'),
        (
            {'source': 'world', 'label_size': (64, 128)},
            r'config.label_size = \(64, 128\): labels of world have 32x64 pixels; ask for no more',
        ),
        ({'field_of_view': 0.0}, 'config.field_of_view = 0.0: expected degrees between 0 and 180'),
        (
            {'label_size': (64, 128)},
            r'config.label_size = \(64, 128\): labels of records:.* have 32x64 pixels; ask for no '
            r'more',
        ),
        ({'split': 'test'}, "no split 'test', there is train, validation"),
    ],
)
def test_what_is_wrong_is_said(forecaster, source, changes, words):
    with pytest.raises(UserError, match=words.replace('clip0*', 'validation/000000')) as error:
        evaluation.evaluate(forecaster, {}, config(**{'source': source, **changes}))
    assert '\n' not in str(error.value)


def test_classes_are_compared_with_classes_and_metres_with_metres(
    forecaster, heads, source, others
):
    metres, normals = heads['depth'], heads['normals']
    classes = metres.replace(depth_range=None)
    for given, read, words in (
        (
            {'depth': classes},
            source,
            'config.heads.depth: gives ordinal classes, and the depth of records:.* is metres; use',
        ),
        (
            {'depth': metres},
            others['classes'],
            'config.heads.depth: gives metres, and the depth of records:.* is ordinal classes; use',
        ),
        (
            {'normals': normals},
            others['classes'],
            'config.heads.normals: the depth of records:.* is ordinal classes, and normals are',
        ),
    ):
        with pytest.raises(UserError, match=words) as error:
            evaluation.evaluate(forecaster, given, config(read))
        assert '\n' not in str(error.value)
    found, _ = evaluation.evaluate(
        forecaster, {'depth': classes}, config(others['classes'], terms=('short',))
    )
    clips, errors = Changed('classes'), []
    for index in range(2):
        clip = clips.read(index, windows.target_window(19, 5, 3))
        features = forecaster.features(forecaster.encode(clip['frames'][None])[:, -1:])
        truth = clip['depth'][-1].astype(float)
        distance = abs(np.asarray(classes.depth(features, SIZE), float)[0, 0] - truth)
        errors.append((distance[truth > 0] / truth[truth > 0]).mean())
    assert found['terms']['short']['oracle']['depth']['abs_rel'] == pytest.approx(
        np.mean(errors), rel=1e-6
    )


def test_depth_smaller_than_the_labels_is_refused_where_it_is_needed(forecaster, heads, others):
    for name in ('depth', 'normals'):
        with pytest.raises(
            UserError,
            match=r'config.label_size = \(32, 64\): depth maps of records:.* have 16x32 pixels; '
            r'ask for no more',
        ):
            evaluation.evaluate(forecaster, {name: heads[name]}, config(others['half']))
    found, _ = evaluation.evaluate(
        forecaster,
        {'segmentation': heads['segmentation']},
        config(others['half'], terms=('short',)),
    )
    assert found['terms']['short']['forecast']['segmentation']['miou'] is not None
    found, _ = evaluation.evaluate(
        forecaster, heads, config(others['half'], terms=('short',), label_size=(16, 32))
    )
    assert found['terms']['short']['forecast']['depth']['pixels'] > 0


def test_a_head_for_another_encoder_is_refused(forecaster, source):
    net = DPTHead(classes=19, **MICRO['head'])
    head = Head(params=random_variables(net, np.zeros((1, 4, 8, 64), np.float32)), net=net)
    words = "config.heads.segmentation: takes features of 64 channels, the forecaster's encoder gives 96; use a head"
    with pytest.raises(UserError, match=words) as error:
        evaluation.evaluate(forecaster, {'segmentation': head}, config(source))
    assert '\n' not in str(error.value)
    ours, theirs = (
        bundles.identity(forecaster.encoder),
        bundles.identity(bundles.load('tiny/forecaster').encoder),
    )
    same = head.replace(
        params=random_variables(net, np.zeros((1, 4, 8, 96), np.float32))
    )  # as many channels, of another network
    with pytest.raises(
        UserError,
        match=f'config.heads.segmentation: was trained on another encoder .{theirs[:12]}. than '
        'the forecaster',
    ):
        evaluation.evaluate(
            forecaster, {'segmentation': same.replace(encoder=theirs)}, config(source)
        )
    evaluation.evaluate(
        forecaster,
        {'segmentation': same.replace(encoder=ours)},
        config(source, terms=('short',), clips=1),
    )
    with pytest.raises(
        UserError, match='config.heads.depth: reads segmentation; expected a head that reads depth'
    ):
        evaluation.evaluate(forecaster, {'depth': head}, config(source))


def test_mistakes_end_the_command_in_one_line(micro_bundles, source, others, tmp_path):
    part, head = bundles.load(micro_bundles / 'forecaster'), bundles.load(micro_bundles / 'head')
    fewer = {name: getattr(part.principal, name)[:20] for name in ('components', 'variance')}
    bundles.save(tmp_path / 'fewer', part.replace(principal=part.principal.replace(**fewer)))
    bundles.save(
        tmp_path / 'wide',
        head.replace(params=random_variables(head.net, np.zeros((1, 4, 8, 64), np.float32))),
    )
    bundles.save(tmp_path / 'stranger', head.replace(encoder='0123456789abcdef' * 4))
    fixed = [
        '--config=configs/eval_forecaster.py',
        f'--config.model={micro_bundles}/forecaster',
        f'--config.source={source}',
        '--config.clips=2',
        '--config.batch_size=2',
        '--config.workers=0',
        '--config.pictures=0',
        '--config.heads.depth=',
        '--config.heads.normals=',
        f'--config.heads.segmentation={micro_bundles}/head',
        "--config.terms=('short',)",
    ]
    mistakes = {
        'components': (
            [f'--config.model={tmp_path}/fewer'],
            f'error: {tmp_path}/fewer: its parts do not fit: the encoder gives 96 '
            'channels, the principal components turn 96 into 20, the forecaster takes 32',
        ),
        'channels': (
            [f'--config.heads.segmentation={tmp_path}/wide'],
            'error: config.heads.segmentation: takes features of 64 channels',
        ),
        'encoder': (
            [f'--config.heads.segmentation={tmp_path}/stranger'],
            'error: config.heads.segmentation: was trained on another '
            "encoder (0123456789ab) than the forecaster's",
        ),
        'labels': (
            ['--config.label_size=(64,128)'],
            'error: config.label_size = (64, 128): labels of records:',
        ),
        'depth': (
            [f'--config.heads.depth={micro_bundles}/head'],
            'error: config.heads.depth: reads segmentation; expected a head that',
        ),
        # Given twice, a tuple gets longer: the terms are short and long, and the first is not
        # evaluated in vain.
        'horizon': (
            ["--config.terms=('long',)"],
            f'error: {source}/validation/000000: 10 frames at stride 3 that end at frame 19 would',
        ),
        'encoded': (
            [f'--config.source=encoded:{tmp_path}'],
            f'error: config.source = encoded:{tmp_path}: encoded clips hold neither',
        ),
    }
    commands = {
        name: [*fixed, *changes, f'--workdir={tmp_path}/{name}_out']
        for name, (changes, _) in mistakes.items()
    }
    commands['bare'] = [
        *fixed,
        f'--config.source={others["bare"]}',
        f'--workdir={tmp_path}/bare_out',
    ]
    found = outcomes('evaluate', commands)
    for name, (_, words) in mistakes.items():
        status, _, err = found[name]
        assert status == 2 and err.startswith(words) and err.count('\n') == 1, (name, err)
        assert not (tmp_path / f'{name}_out').exists()
    status, out, err = found['bare']
    assert status == 0, err
    assert (
        f'left out: mIoU: split validation of {others["bare"]} has no labels for it' in out
        and 'left out: depth errors: no head' in out
    )
    assert 'component SmoothL1' in out and 'mIoU %' not in out


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the authors' files are not at {GOLDEN}")
def test_a_converted_forecaster_and_head_are_evaluated_as_they_are(tmp_path):
    bundles.save(
        tmp_path / 'forecaster', dino_foresight.convert(GOLDEN / 'dinof.ckpt', encoder_heads=3)
    )
    bundles.save(tmp_path / 'head', dpt.convert(GOLDEN / 'head_segm.ckpt'))
    command = [
        '--config=configs/eval_forecaster.py',
        f'--config.model={tmp_path}/forecaster',
        '--config.clips=2',
        '--config.batch_size=2',
        '--config.workers=0',
        f'--config.heads.segmentation={tmp_path}/head',
        '--config.heads.depth=',
        '--config.heads.normals=',
        '--config.pictures=1',
        f'--workdir={tmp_path}/out',
    ]
    status, out, err = outcomes('evaluate', {'golden': command})['golden']
    assert status == 0 and 'mid-term: ' in out, err
    report = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert report['protocol']['size'] == [56, 112] and report['protocol']['components'] == 36
    model, head, world = (
        bundles.load(tmp_path / 'forecaster'),
        bundles.load(tmp_path / 'head'),
        World('validation', 2, size=(56, 112)),
    )
    for term, steps in (('short', 1), ('mid', 3)):
        clips = [world.read(index, windows.target_window(19, 4 + steps, 3)) for index in range(2)]
        components = model.encode(np.stack([clip['frames'] for clip in clips]))
        forecast = model.forecast(components[:, :4], steps)[:, -1:]
        distance = abs(np.asarray(forecast - components[:, -1:], np.float64))
        scores = report['terms'][term]['forecast']
        assert scores['smooth_l1'] == pytest.approx(
            np.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean(), rel=1e-4
        )
        labels = np.stack([clip['labels'][-1:] for clip in clips])
        read = np.asarray(head.labels(model.features(forecast), (56, 112)))
        accuracy = (read == labels)[labels != 255].mean()
        assert scores['segmentation']['accuracy'] == pytest.approx(
            accuracy, abs=2e-3
        )  # a tie may fall either way
