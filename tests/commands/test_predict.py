"""The predict command, and the library behind it."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import re2pix_jax
from re2pix_jax import bundles
from re2pix_jax.data import video
from re2pix_jax.evaluation import prediction
from re2pix_jax.evaluation.evaluators import components as errors
from re2pix_jax.evaluation.evaluators import image
from tests.conftest import ROOT, SIZE
from tests.running import environment
from tests.running import outcomes as run_commands

# name: (arguments after --out, what the error says); {dir} holds videos, {model} the micro bundles
BAD = {
    'missing file': ('--video={dir}/none.mp4', r'none\.mp4.*no such file'),
    'not a video': ('--video={dir}/text.mp4', r'text\.mp4: .*not a .*video'),
    'too few frames': ('--video={dir}/short.mp4', r'short\.mp4: 3 frames.*expected at least 4'),
    'start beyond the end': (
        '--video={dir}/good.mp4 --start=60',
        r'good\.mp4: 0 frames.*expected at least 4',
    ),
    'frame rate': (
        '--video={dir}/slow.mp4',
        r'slow\.mp4: has 3 frames per second, expected at least the 5\.667 that are asked for',
    ),
    'too low': ('--video={dir}/low.mp4', r'low\.mp4.*12.*at least 16'),
    'too narrow': ('--video={dir}/narrow.mp4', r'narrow\.mp4.*12.*at least 16'),
    'unknown model': ('--video={dir}/good.mp4 --model=tinny', r'tinny: no such model'),
    'other kind': (
        '--video={dir}/good.mp4 --model={model}/head',
        r'holds kind head, where kind re2pix is needed',
    ),
    'out is a file': (
        '--video={dir}/good.mp4 --out={dir}/text.mp4',
        r"text\.mp4: can't be written \(file exists\)",
    ),
    'out unwritable': ('--video={dir}/good.mp4 --out=/proc/1/none', r"1/none: can't be written"),
    'out nowhere': ('--video={dir}/good.mp4 --out=/proc/nope/x', r"nope/x: can't be written"),
    'full disk': (
        '--world=validation:0',
        r'full disk/future.mp4: the disk is full; nothing half-written was left, free some space',
    ),
    'neither': ('', r'--video and --world: expected one of them, got neither'),
    'both': ('--video={dir}/good.mp4 --world=validation:0', r'expected one of them, got both'),
    'world without index': ('--world=validation', r'--world=validation: expected SPLIT:INDEX'),
    'world index': ('--world=validation:x', r'expected SPLIT:INDEX'),
    'negative world index': ('--world=validation:-1', r'an index from 0 on'),
    'world split': ('--world=night:3', r'a split of train, validation, test'),
    'horizon': ('--video={dir}/good.mp4 --horizon=0', r'horizon'),
    'too often': ('--video={dir}/good.mp4 --every=0.04', r'--every=0.04: expected at least 0.1 s'),
    'no number': ('--video={dir}/good.mp4 --every=nan', r'--every=nan: expected a finite number'),
    'large seed': ('--video={dir}/good.mp4 --seed=4294967296', r'expected a number below 2\*\*32'),
    'horizon text': ('--video={dir}/good.mp4 --horizon=long', r'horizon'),
    'endless start': ('--video={dir}/good.mp4 --start=inf', r'start=inf: expected a finite number'),
    'no start': ('--world=validation:0 --start=nan', r'start=nan: expected a finite number'),
    'missing tensor': (
        '--video={dir}/good.mp4 --model={outs}/missing',
        r'missing.*generator.*(missing|lacks|not there)',
    ),
    'extra tensor': ('--video={dir}/good.mp4 --model={outs}/extra', r'extra.*surplus'),
    'negative start': ('--video={dir}/good.mp4 --start=-1', r'start'),
    'futures': ('--video={dir}/good.mp4 --num_futures=0', r'num_futures'),
    'sampler': (
        '--video={dir}/good.mp4 --sampler=ddpm',
        r"sampler 'ddpm' is unknown; choose one of euler, heun, ddim",
    ),
    'sampler grid': (
        '--video={dir}/good.mp4 --sampler_grid=even:3',
        r"sampler grid 'even:3' makes no times from 0 to 1; choose one of even, shifted, quantiles",
    ),
    'context noise': (
        '--video={dir}/good.mp4 --context_noise=0.2',
        r'context_noise is 0.2; this generator was trained for none: train one',
    ),
    'sampler steps': ('--video={dir}/good.mp4 --sampler_steps=0', r'sampler_steps'),
    'no channels': ('--video={dir}/good.mp4 --channels=0', r'channels'),
    'channels': (
        '--video={dir}/good.mp4 --channels=33',
        r'channels: 33 of 32 components .* from 1 to 32',
    ),
    'guidance channels': (
        '--video={dir}/good.mp4 --guidance=1 --guidance_channels=33',
        r'guidance keeps 33 of 32 components',
    ),
    'unknown flag': ('--video={dir}/good.mp4 --horzon=3', r'unknown flag --horzon'),
    'positional': ('{dir}/good.mp4', r'positional arguments expected: none'),
}
GOOD = {
    'video': '--video={dir}/good.mp4 --start=0.2',
    'context only': '--video={dir}/context.mp4 --dtype=bfloat16',
    'world': (
        '--world=validation:0 --num_futures=2 --sampler=heun --sampler_grid=shifted:2 '
        '--channels=16 --guidance=0.4'
    ),
}
MANY = {
    'many': '--video={dir}/both --video={dir}/good.mp4 --every=0.4',
    'given': '--video={dir}/dangling.mp4 --video={dir}/good.mp4',
    'none of many': '--video={dir}/text.mp4 --video={dir}/short.mp4',
}


def drive(count, size=(40, 72)):
    """A textured picture that moves to the left, uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(0)
    picture = np.asarray(
        Image.fromarray(rng.integers(0, 256, (8, 40, 3), dtype=np.uint8)).resize((400, size[0]))
    )
    return np.stack([picture[:, 2 * k : 2 * k + size[1]] for k in range(count)])


def stirred(model, scale=0.1):
    """The model with noise on the weights of both stages, which end in zeros at first and would
    ignore their inputs.
    """

    def stir(part):
        leaves, tree = jax.tree.flatten(part.params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [
            leaf + scale * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        return part.replace(params=jax.tree.unflatten(tree, noisy))

    return model.replace(forecaster=stir(model.forecaster), generator=stir(model.generator))


@pytest.fixture(scope='module')
def model(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    video.write(folder / 'good.mp4', drive(22), 17)
    video.write(folder / 'context.mp4', drive(10), 17)
    video.write(folder / 'short.mp4', drive(9), 17)
    video.write(folder / 'slow.mp4', drive(12), 3)
    video.write(folder / 'low.mp4', drive(22, (12, 72)), 17)
    video.write(folder / 'narrow.mp4', drive(22, (72, 12)), 17)
    (folder / 'text.mp4').write_text('no video at all\n')
    return folder


def _spoil(source, bundle, change):
    """A copy of a model whose generator's tensors are changed."""
    shutil.copytree(source, bundle)
    file = bundle / 'generator' / 'weights.safetensors'
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.fixture(scope='module')
def outcomes(folder, model, micro_bundles, tmp_path_factory):
    """{name: (status, stdout, stderr, out folder)} of every command line above."""
    outs = tmp_path_factory.mktemp('outs')
    bundles.save(outs / 'model', model)
    _spoil(outs / 'model', outs / 'missing', lambda tensors: tensors.pop(min(tensors)))
    _spoil(
        outs / 'model',
        outs / 'extra',
        lambda tensors: tensors.update(surplus=np.zeros(3, np.float32)),
    )
    (folder / 'dangling.mp4').symlink_to('nowhere.mp4')
    (folder / 'both').mkdir()
    for name in ('good', 'text'):
        shutil.copy(folder / f'{name}.mp4', folder / 'both')
    lines = {name: line for name, (line, _) in BAD.items()} | GOOD | MANY
    commands = {}
    for name, line in lines.items():
        # A later flag wins.
        first = [f'--out={outs / name}', f'--model={outs}/model', '--horizon=2']
        commands[name] = first + line.format(dir=folder, model=micro_bundles, outs=outs).split()
    # Without optimisation it compiles several times faster.
    found = run_commands(
        'predict', commands, file_limit={'full disk': 2000}, JAX_DISABLE_MOST_OPTIMIZATIONS='1'
    )
    return {name: (*outcome, outs / name) for name, outcome in found.items()}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name, outcomes):
    status, out, error, folder = outcomes[name]
    assert status == 2
    assert out == ''
    assert error.startswith('error: ') and error.count('\n') == 1 and error.endswith('\n')
    assert re.search(BAD[name][1], error, re.IGNORECASE), error
    assert not folder.exists()


def test_several_videos_and_times_are_predicted_in_one_run(outcomes):
    status, out, error, folder = outcomes['many']
    assert status == 1 and 'text.mp4: not a readable video' in error
    expected = {f'{name}.mp4_{start}s' for name in ('both_good', 'good') for start in (0.0, 0.4)}
    assert {place.name for place in folder.iterdir()} == expected
    for place in folder.iterdir():
        report = json.loads((place / 'metrics.json').read_text())
        assert f'{report["protocol"]["start_seconds"]:.1f}s' == place.name.split('_')[-1]
    assert out.count('compiling and predicting ') == 1, 'the first alone compiles'
    # A video that was given itself was meant.
    status, out, error, folder = outcomes['given']
    assert status == 2 and [place.name for place in folder.iterdir()] == ['good.mp4']
    assert re.fullmatch(r'error: .*/dangling.mp4: is a link to nowhere.mp4, .*\n', error)
    status, out, error, folder = outcomes['none of many']
    assert status == 2 and not folder.exists()
    assert error.splitlines()[-1].startswith('error: none of 2 videos can be predicted, the first')


@pytest.mark.parametrize('name', GOOD)
def test_a_prediction_is_written(name, outcomes):
    status, out, error, folder = outcomes[name]
    assert status == 0, error
    written = ['future.mp4', 'metrics.json', 'sheet.png']
    assert sorted(file.name for file in folder.iterdir()) == written
    report = json.loads((folder / 'metrics.json').read_text())
    assert report['protocol'] == {
        'fps': 17 / 3,
        'stride': 3,
        'base_fps': 17.0,
        'size': list(SIZE),
        'context_frames': 4,
        'horizon': 2,
        'true_future_frames': 0 if name == 'context only' else 2,
        'start_seconds': 0.2 if name == 'video' else 0.0,
        'sampler_steps': 2,
        'sampler_grid': 'shifted:2' if name == 'world' else 'even',
        'context_noise': 0.0,
        'dtype': 'bfloat16' if name == 'context only' else 'float32',
        **(
            dict(sampler='heun', network_evaluations=6, channels=16, guidance_channels=8)
            if name == 'world'
            else dict(sampler='euler', network_evaluations=2, channels=32, guidance_channels=None)
        ),
    }
    assert (
        f'2 {report["protocol"]["sampler"]} steps ({report["protocol"]["sampler_grid"]} grid), '
        f'{report["protocol"]["network_evaluations"]} evaluations' in out
    )
    assert [row['step'] for row in report['steps']] == [1, 2]
    assert report['steps'][1]['seconds'] == pytest.approx(6 / 17)
    assert ('re2pix' in report['steps'][0]) == (name != 'context only')
    assert ('miou' in report['steps'][0].get('re2pix', {})) == (name == 'world')
    assert video.probe(folder / 'future.mp4').frames == 6
    assert video.probe(folder / 'future.mp4').fps == pytest.approx(17 / 3, abs=1e-3)
    assert ('there is no truth' in out) == (name == 'context only')
    assert out.count('\n') >= (3 if name == 'context only' else 5) and str(folder) in out


def test_futures_are_reported_one_by_one_and_on_average(outcomes):
    report = json.loads((outcomes['world'][3] / 'metrics.json').read_text())
    assert [future['future'] for future in report['futures']] == [0, 1]
    for step, row in enumerate(report['steps']):
        each = [future['steps'][step]['re2pix']['psnr'] for future in report['futures']]
        assert row['re2pix']['psnr'] == pytest.approx(np.mean(each))
        assert each[0] != each[1]


def test_the_panels_are_in_the_video_and_on_the_sheet(outcomes, folder):
    """The truth panel is the file's frames; where the truth is unknown it is grey."""
    shown = video.read(outcomes['video'][3] / 'future.mp4')
    truth = video.read(folder / 'good.mp4', fps=17 / 3, start=0.2, max_frames=6, size=SIZE)
    panel = shown[:, 24 : 24 + 128, 4 : 4 + 256].astype(float)
    assert np.abs(panel - truth.repeat(4, 1).repeat(4, 2)).mean() < 12
    unknown = video.read(outcomes['context only'][3] / 'future.mp4')[
        :, 24 : 24 + 20, 4 : 4 + 256
    ].astype(float)
    assert np.abs(unknown[4:] - 96).mean() < 3 < np.abs(unknown[:4] - 96).mean()
    sheet = np.asarray(Image.open(outcomes['world'][3] / 'sheet.png'))
    assert sheet.shape[1] > 6 * 256 and sheet.shape[0] > 5 * 128, (
        'six steps; truth, two futures, two kinds of features'
    )


def test_exit_status_of_the_command_itself(tmp_path):
    command = [
        sys.executable,
        '-m',
        're2pix_jax',
        'predict',
        f'--video={tmp_path}/none.mp4',
        f'--out={tmp_path}/out',
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.startswith('error: ')
        and done.stderr.count('\n') == 1
        and 'none.mp4' in done.stderr
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_rows_are_what_the_parts_say(model):
    frames = video.fit(drive(6), SIZE)
    found = prediction.predict(model, prediction.Clip('drive', frames), horizon=2, seed=3)
    row, truth = found.report['steps'][1], frames[5]
    encode = lambda frames: np.asarray(model.forecaster.encode(frames[None])[0])
    components = encode(frames)
    reconstructed = np.asarray(model.vae.decode(model.vae.encode(frames[None]))[0])
    assert row['re2pix']['psnr'] == pytest.approx(
        float(image.psnr(found.future.frames[0, 1], truth))
    )
    assert row['copy_last']['ssim'] == pytest.approx(float(image.ssim(frames[3], truth)), abs=1e-5)
    assert row['vae']['psnr'] == pytest.approx(float(image.psnr(reconstructed[5], truth)), abs=0.05)
    error = errors.smooth_l1(components[3], components[5])
    assert row['copy_last']['feature_error'] == pytest.approx(float(error), rel=1e-4)
    error = errors.smooth_l1(encode(found.future.frames[0])[1], components[5])
    assert row['re2pix']['feature_error'] == pytest.approx(float(error), rel=1e-4)
    error = errors.smooth_l1(found.future.components[0, 1], components[5])
    assert row['forecast']['feature_error'] == pytest.approx(float(error), rel=1e-4)


def test_the_library_predicts_what_the_command_does(outcomes, folder, tmp_path):
    """`re2pix_jax.load(...).predict` on the context that the command reads gives the frames that it
    shows.
    """
    model = re2pix_jax.load(str(outcomes['video'][3].parent / 'model'))
    clip = prediction.read_video(model, folder / 'good.mp4', horizon=2, start=0.2)
    found = prediction.predict(model, clip, horizon=2)
    context = re2pix_jax.data.video.read(
        folder / 'good.mp4', fps=model.fps, start=0.2, max_frames=model.context_frames
    )
    np.testing.assert_array_equal(
        model.predict(context, horizon=2, seed=0).frames, found.future.frames[0]
    )
    prediction.write(tmp_path, model, found)
    own, other = tmp_path / 'future.mp4', outcomes['video'][3] / 'future.mp4'
    own, other = (re2pix_jax.data.video.read(path).astype(int) for path in (own, other))
    # Sums of another process may end in another bit, and a pixel in another rounding.
    assert own.shape == other.shape and np.abs(own - other).mean() < 0.1


def test_the_seed_decides_and_the_truth_does_not(model):
    frames = video.fit(drive(6), SIZE)
    other = frames.copy()
    other[4:] = 255 - other[4:]
    first, again, changed = (
        prediction.predict(model, prediction.Clip('x', clip), horizon=2, seed=seed).future.frames
        for clip, seed in ((frames, 0), (other, 0), (frames, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != changed).any()


ON_DEVICES = """
import sys
import jax
import numpy as np
from re2pix_jax import bundles
from re2pix_jax.training import mesh

model, context = bundles.load(sys.argv[1]), np.load(sys.argv[2])
devices = mesh.create()
with jax.set_mesh(devices):
    context, noise = mesh.global_batch((context, np.arange(len(context), dtype=np.int32)), devices)
    out = model.rollout(context, jax.vmap(jax.random.key)(noise), 5)
    assert len(context.sharding.device_set) == jax.device_count() == int(sys.argv[3])
    np.savez(sys.argv[4], **{name: jax.device_get(out[name]) for name in ('frames', 'latents')})
"""


@pytest.mark.long
def test_eight_devices_draw_different_noise_and_give_the_videos_of_one(model, tmp_path):
    bundles.save(tmp_path / 'model', model)
    context = np.random.default_rng(0).integers(0, 256, (1, 4, *SIZE, 3), dtype=np.uint8)
    # Only the noise tells the eight apart.
    np.save(tmp_path / 'context.npy', np.repeat(context, 8, axis=0))
    videos = {}
    for devices in (1, 8):
        out = tmp_path / f'{devices}.npz'
        arguments = tmp_path / 'model', tmp_path / 'context.npy', str(devices), out
        subprocess.run(
            [sys.executable, '-c', ON_DEVICES, *arguments],
            check=True,
            cwd=ROOT,
            env=environment(devices),
        )
        videos[devices] = np.load(out)
    one, eight = (videos[devices]['latents'] for devices in (1, 8))
    np.testing.assert_allclose(eight, one, atol=1e-4 * np.abs(one).max())
    apart = np.abs(videos[8]['frames'].astype(int) - videos[1]['frames']).max()
    assert apart <= 1, 'a rounded pixel'
    apart = [np.abs(eight[a] - eight[b]).max() for a in range(8) for b in range(a)]
    assert min(apart) > 0.1 * np.abs(eight).max()
