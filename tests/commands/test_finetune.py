"""The finetune command on micro networks: what it says first, what it leaves, where it goes on."""

import json
import re
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from re2pix_jax import bundles, errors
from re2pix_jax.data import video
from re2pix_jax.finetuning import finetune, parts, plan
from tests.conftest import ROOT, SIZE, load_config
from tests.data import index_coded
from tests.running import outcomes

pytestmark = pytest.mark.long  # some take ten seconds and more


@pytest.fixture(scope='module')
def footage(tmp_path_factory):
    """Two videos of six seconds and one file that is none."""
    folder = tmp_path_factory.mktemp('footage')
    for name in ('a', 'b'):
        index_coded.write(folder / f'{name}.mp4', range(180), np.arange(180) / 30)
    (folder / 'broken.mp4').write_text('no video')
    return folder


def line(footage, out, bundles, *more, steps='2,2,2'):
    return [str(footage), f'--out={out}', f'--model={bundles}/re2pix', f'--steps={steps}', *more]


@pytest.fixture(scope='module')
def done(footage, micro_bundles, tmp_path_factory):
    """(folder, {name: [status, stdout, stderr]})"""
    folder = tmp_path_factory.mktemp('finetune')
    (folder / 'single').mkdir()
    index_coded.write(folder / 'single' / 'a.mp4', range(60), np.arange(60) / 30)
    (folder / 'single' / 'b.mp4').write_text('no video')
    for name, rate, size in (('slow', 5, 1), ('small', 30, 8)):
        (folder / name).mkdir()
        for film in ('a', 'b'):
            frames = [index_coded.picture(k)[::size, ::size] for k in range(12 * rate)]
            video.write(folder / name / f'{film}.mp4', frames, rate)
    (folder / 'taken').mkdir()
    (folder / 'taken' / 'x').write_text('')
    of = lambda name, *more, **options: line(
        footage, folder / name, micro_bundles, *more, **options
    )
    lines = {
        'preview': of('preview', '--preview'),
        'whole': of('whole'),
        'again': of('whole'),
        'other steps': of('begun', steps='2,2,3'),
        'no such folder': line(folder / 'nowhere', folder / 'x', micro_bundles),
        'a single clip': line(folder / 'single', folder / 'x', micro_bundles),
        'in the footage': line(footage, footage / 'out', micro_bundles),
        'other rate': of('begun', '--folder_fps=20'),
        'slow': line(folder / 'slow', folder / 'x', micro_bundles),
        'small': line(folder / 'small', folder / 'x', micro_bundles),
        'here': line(footage, '.', micro_bundles),
        'something else there': of('taken'),
        'two steps': of('x', steps='2,2'),
    }
    (folder / 'begun.work').mkdir()
    (folder / 'begun.work' / plan.PLAN).write_text('{"steps": {"vae": 2}}')
    return folder, outcomes('finetune', lines)


def test_it_says_first_what_it_will_do_and_a_preview_ends_there(done):
    folder, found = done
    status, out, err = found['preview']
    assert status == 0, err
    assert re.search(r'validation: [ab].mp4: \d clips?, \d+ windows? of 8 frames', out)
    assert re.search(r'broken.mp4: cannot be read, left out \(.*broken.mp4.*\)', out)
    for part in ('prepare', 'encode', 'train', 'evaluate', 'predict'):
        assert re.search(rf'^  {part} +\S+', out, re.M)
    assert re.search(r'about [\dms ]+ and the steps in all, \d+ MB in ', out)
    assert not list(folder.glob('preview*')), 'nothing is written'


def test_the_whole_leaves_a_bundle_with_a_page(done, micro_bundles):
    folder, found = done
    status, out, err = found['whole']
    assert status == 0, err
    model = bundles.load(str(folder / 'whole'), 're2pix')
    assert model.size == SIZE
    before = bundles.digest(f'{micro_bundles}/re2pix', 're2pix')
    assert bundles.digest(str(folder / 'whole'), 're2pix') != before
    page = (folder / 'whole' / 'index.html').read_text()
    assert 'PSNR' in out and 'untuned' in page and page.count('<img') == 3 and 'by time' in page
    reports = [json.loads((folder / f'whole.work/{name}.json').read_text()) for name in TUNED]
    for report in reports:
        assert report['protocol']['clips'] == 1 and report['protocol']['split'] == 'validation'
        assert set(report['overall']['re2pix']) >= {'psnr', 'feature_error', 'frechet_frames'}
    assert (folder / 'whole/moments/0/future.mp4').is_file()


TUNED = ('untuned', 'tuned')


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('again', 'whole: is there already, with its page; remove it or choose another'),
        ('other steps', 'begun.work: was begun with other .*steps.*; give the same command again'),
        ('no such folder', 'nowhere: no such folder'),
        (
            'a single clip',
            'single: a single clip, and none to hold out.*; train: b.mp4: cannot be read, left out',
        ),
        ('in the footage', 'out: lies in the footage, where what is made would be taken for more'),
        ('other rate', 'begun.work: was begun with other .*folder_fps.*; give the same command'),
        ('slow', r'slow: 0 of \d+ train clips hold a window of 8 frames at 5.667 per second or m'),
        ('small', r'small: 0 of \d+ train clips hold a window .* and of 16 pixels or more'),
        ('here', 'already exists and is not a bundle'),
        ('something else there', 'taken: already exists and is not a bundle'),
        ('two steps', '--steps=2,2: expected three numbers'),
    ],
)
def test_what_is_wrong_is_one_line(done, name, words):
    folder, found = done
    status, _, err = found[name]
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith('error: ') and re.search(words, last), err
    assert not (folder / 'x').exists() and not (folder / 'x.work').exists()


HOLDING = """
import sys, time
from re2pix_jax.training import lock
with lock.held(sys.argv[1]):
    print('held', flush=True)
    time.sleep(60)
"""


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    """Also where nothing is being trained."""
    for name in ('look', 'disk', 'estimates', 'describe', 'begin'):
        monkeypatch.setattr(plan, name, lambda *_: None)
    run = types.SimpleNamespace(
        footage=tmp_path / 'f', out=tmp_path / 'x', work=tmp_path / 'x.work'
    )
    run.work.mkdir()
    with subprocess.Popen(
        [sys.executable, '-c', HOLDING, str(run.work)], cwd=ROOT, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(errors.UserError) as said:
            finetune.finetune(run)
        other.kill()
    assert re.search(r'x.work is .* by process \d+ on .*choose another --out$', str(said.value))


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(done, footage, micro_bundles, tmp_path):
    folder, _ = done
    rng = np.random.default_rng(0)
    command = [sys.executable, '-m', 're2pix_jax', 'finetune']
    command += line(footage, tmp_path / 'killed', micro_bundles)
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=2)
        time.sleep(rng.uniform(5, 40))
        process.kill()
        process.wait()
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not (tmp_path / 'killed' / 'index.html').is_file():
        assert finished.returncode == 0, finished.stderr
    digest = lambda path: bundles.digest(str(path), 're2pix')
    assert digest(tmp_path / 'killed') == digest(folder / 'whole')


@pytest.mark.parametrize(
    ('size', 'name', 'variant', 'of'),
    [
        ((64, 128), 'generator', '', 'generator:tiny'),
        ((128, 256), 'generator', '', 'generator:small'),
        ((144, 256), 'forecaster', '-unrolled', 'forecaster:small-unrolled'),
        ((256, 512), 'autoencoder', '', 'autoencoder:base'),
        ((256, 512), 'forecaster', '-unrolled', 'forecaster:small-unrolled'),  # it has no larger
    ],
)
def test_the_recipe_follows_the_size_of_the_bundle(size, name, variant, of):
    class Model:
        pass

    Model.size = size
    load = lambda name: load_config(*name.split(':'))
    found = parts.recipe(plan.Run(*[None] * 4, Model, *[None] * 4, load), name, variant)
    expected = load(of)
    assert found.optimizer == expected.optimizer and found.batch_size == expected.batch_size
    assert found.dtype == 'float32'  # on a CPU
