"""The command in bad hours: what is damaged, double, lost or killed, and the pages that show what
came of it.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from re2pix_jax.data import frame_records, records, video
from re2pix_jax.data.sources import encoded
from re2pix_jax.data.sources.world import World
from tests.conftest import ROOT, SIZE
from tests.data import layouts
from tests.data.stubs import damage, manifest_of
from tests.running import hear_ctrl_c, outcomes


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    """{name: [status, stdout, stderr]} of the commands below, and their folder."""
    folder = tmp_path_factory.mktemp('command')
    worlds = {split: World(split, 3, 12, SIZE) for split in ('train', 'validation')}
    for name in ('world', 'damaged'):
        frame_records.write_frames(folder / name, worlds)
    damage(folder / 'damaged')
    noise = np.random.default_rng(0).normal(size=(encoded.BLOCK, 4, 8, 5))
    encoded.write(
        folder / 'encoded',
        worlds,
        lambda frames: {'components': noise},
        SIZE,
        {'components': (4, 8, 5)},
        {},
    )
    for name in ('twice/train/a', 'twice/validation/a', 'empty_split/train/a'):
        video.write(folder / f'{name}.mp4', np.stack([layouts.frame(k) for k in range(8)]), 17)
    (folder / 'empty_split/validation').mkdir()
    (folder / 'empty_split/validation/b.mp4').write_text('no video')
    layouts.nuscenes(folder / 'nuscenes', ('scene-0001',), frames=7)
    prepare = {'twice': 'video_folder', 'empty_split': 'video_folder', 'nuscenes': 'nuscenes'}
    lines = {
        name: f'{kind} --raw={folder}/{name} --out={folder}/out/{name} --processes=1'
        for name, kind in prepare.items()
    }
    lines |= {
        'check': f'--check={folder}/damaged',
        'check a shard': f'--check={folder}/damaged --shard=1/2',
        'check and make': f'world --check={folder}/damaged',
        'a shard': f'video_folder --raw={folder}/empty_split --out={folder}/of --shard=2/2',
        'look': f'--look={folder}/world',
        'look encoded': f'--look={folder}/encoded',
        'look empty_split': f'--look={folder}/out/empty_split',
        'check empty_split': f'--check={folder}/out/empty_split',
    }
    return outcomes('prepare', {name: line.split() for name, line in lines.items()}), folder


def test_damage_is_told_by_the_check(commands):
    done, folder = commands
    status, out, err = done['check']
    assert (status, out) == (2, '') and err.count('\n') == 1, err
    assert (
        err.startswith(f'error: {folder}/damaged: ')
        and ' of 6 clips are not as the manifest says; record ' in err
    )
    assert err.endswith('; prepare the folder again\n')


def test_a_check_is_about_a_folder_as_it_is(commands):
    for case, odd in (('check a shard', '--shard'), ('check and make', 'world')):
        words = f'error: --check: looks at a folder as it is; leave out {odd}\n'
        assert commands[0][case] == [2, '', words]


def test_a_shard_counts_what_it_leaves_out(commands):
    status, out, _ = commands[0]['a shard']
    assert status == 0 and out.startswith(f'{commands[1]}/of, shard 2 of 2: ')
    assert out.endswith(' validation clips, 1 left out\n') and out.count('\n') == 1


def test_the_page_shows_labels_depth_and_components(commands):
    done, folder = commands
    assert done['look'] == [0, f'{folder}/world/look.html\n', ''] and done['look encoded'] == [
        0,
        f'{folder}/encoded/look.html\n',
        '',
    ]
    pages = {name: (folder / name / 'look.html').read_text() for name in ('world', 'encoded')}
    for page in pages.values():
        assert (
            page.count('data:image/png;base64,') == 6
            and 'validation: validation/000002, frames' in page
        )
    # The sheets of frames, labels and depth are three rows high, that of components one.
    heights = {name: max(_heights(page)) for name, page in pages.items()}
    assert heights['world'] > 2 * heights['encoded']


def _heights(page) -> list[int]:
    """Heights of the png images within a page."""
    import base64
    import re

    return [
        int.from_bytes(base64.b64decode(text)[20:24], 'big')
        for text in re.findall(r'data:image/png;base64,([^"]+)', page)
    ]


def test_two_files_of_one_name_are_refused(commands):
    done, folder = commands
    status, out, err = done['twice']
    assert (status, out) == (2, '') and err.count('\n') == 1, err
    assert 'train/a.mp4 and validation/a.mp4 have the same name in two splits; rename one' in err
    assert not list((folder / 'out').glob('twice*'))


def test_a_split_that_does_not_open_is_named(commands):
    done, folder = commands
    status, out, err = done['nuscenes']
    assert (status, out) == (0, f'{folder}/out/nuscenes: 1 train clip\n')
    lines = [line for line in err.splitlines() if line.startswith('no split ')]
    assert lines == [
        f"no split {split}: {folder}/nuscenes: no clips of split '{split}', there are some of train"
        for split in ('validation', 'test')
    ]


def test_a_split_of_damaged_clips_leaves_the_others(commands):
    done, folder = commands
    status, out, _ = done['empty_split']
    assert status == 1 and f'{folder}/out/empty_split: 1 train clip, 0 validation clips\n' in out
    assert (
        'split validation is left out: none of its clips can be used\n' in out
        and 'left out validation/b.mp4#0: ' in out
    )
    assert layouts.numbers(
        records.Records(folder / 'out/empty_split', 'train').read(0, [5])['frames']
    ) == [5]
    assert done['check empty_split'][:2] == [
        0,
        f'{folder}/out/empty_split: 1 train clip, all as the manifest says\n',
    ]
    assert done['look empty_split'][0] == 0, done['look empty_split']


@pytest.mark.long
def test_a_preparation_that_was_killed_goes_on(tmp_path):
    command = [
        sys.executable,
        '-m',
        're2pix_jax',
        'prepare',
        'world',
        f'--out={tmp_path}/killed',
        '--clips=64',
        '--validation_clips=2',
        '--frames=6',
        '--size=32x64',
        '--processes=2',
    ]
    partial = tmp_path / 'killed.partial'

    def begun():
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        )
        _wait(lambda: _workers(process) and list(partial.glob('train-*.json')))
        return process, _workers(process)

    alone, workers = begun()
    os.kill(int(workers[0]), signal.SIGKILL)
    assert alone.communicate(timeout=120)[1].splitlines()[-1] == (
        'error: one of 2 processes that prepare was killed (where memory has run out, lower '
        '--processes): ending; the same command goes on'
    )
    assert alone.returncode == 75
    stopped, workers = begun()
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does
    said = stopped.communicate(timeout=60)[1]
    lines = [line for line in said.splitlines() if not line.startswith('prepare: ')]
    assert (stopped.returncode, lines) == (130, ['interrupted; the same command goes on'])
    killed, workers = begun()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _wait(
        lambda: not any(_lives(worker) for worker in workers)
    )  # else they would write into what the next command writes
    assert not (tmp_path / 'killed').exists()
    assert 2 <= len(list(partial.glob('*.json'))) < 6, 'the plan and some, not all, of five shards'
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and 'prepare: going on after ' in done.stderr, done.stderr
    worlds = {
        split: World(split, count, 6, SIZE) for split, count in (('train', 64), ('validation', 2))
    }
    frame_records.write_frames(tmp_path / 'straight', worlds, source='world, 6 frames at 32x64')
    assert manifest_of(tmp_path / 'killed') == manifest_of(tmp_path / 'straight')
    assert sorted(file.name for file in (tmp_path / 'killed').iterdir()) == sorted(
        file.name for file in (tmp_path / 'straight').iterdir()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ['killed', 'straight']


def _workers(process) -> list[str]:
    children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
    found = children.read_text().split() if children.exists() else []
    return [
        one for one in found if 'spawn_main' in pathlib.Path(f'/proc/{one}/cmdline').read_text()
    ]


def _wait(until, seconds=120):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.005)


def _lives(process) -> bool:
    try:
        return (
            pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
        )
    except OSError:
        return False
