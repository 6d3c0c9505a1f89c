"""Every container with every kind of time: what is read is the frame nearest to the time that is
asked for, by `video.read`, in the clips of `videos:` and in prepared records.
"""

import json

import numpy as np
import pytest

from re2pix_jax.data import prepare, records, timeline, video, windows
from re2pix_jax.data.sources.videos import Videos
from tests.conftest import ROOT
from tests.data import index_coded

CASES = ROOT.parent / 'shared' / 'cases' / 'video'
STARTS = (0, 0.5, 1, 1.5)
ROUNDED = 2e-3  # seconds: FLV and Matroska count milliseconds


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """{name: (path, numbers, seconds)} of all combinations, and the folder that they lie in."""
    folder = tmp_path_factory.mktemp('containers') / 'train'
    folder.mkdir()
    found = {}
    for ending in index_coded.CODERS:
        for kind in index_coded.KINDS:
            if (ending, kind) not in index_coded.IMPOSSIBLE:
                path, shown, seconds = index_coded.make(folder, ending, kind)
                found[path.name] = path, shown, np.array(seconds)
    return found, folder.parent


def wrong(frames, times, shown, seconds):
    """What is read wrongly at these times; either of two frames at the same distance is right."""
    found = []
    for time, is_read in zip(times, index_coded.numbers(frames), strict=True):
        far = np.abs(seconds - time)
        right = [shown[k] for k in np.flatnonzero(far <= far.min() + 2 * ROUNDED)]
        if is_read not in right:
            found.append(f'{is_read} instead of {right} at {time:.3f} s')
    return found


def wrong_reads(path, shown, seconds, size):
    found = []
    for start in STARTS:
        if start > seconds[-1]:
            continue
        frames = video.read(path, fps=10, start=start)
        times = start + np.arange(len(frames)) / 10
        found += wrong(frames, times, shown, seconds)
        if frames.shape[1:3] != size:
            found.append(f'{frames.shape[1:3]} pixels')
        if not len(frames) - 1 <= (seconds[-1] - start) * 10 + 1e-3 < len(frames):
            found.append(f'{len(frames)} frames from {start} s on')
    if (line := timeline.of(path)) and len(line.times) != len(shown):
        return [*found, f'{len(line.times)} frames of {len(shown)}']
    if np.abs(line.times - seconds).max() > ROUNDED:
        found.append(f'times are off by {np.abs(line.times - seconds).max():.4f} s')
    return found


def wrong_clips(sources, name, shown, seconds):
    """Clips are disjoint and complete; windows are at their times."""
    found, seen = [], []
    clips = [(each, clip) for each in sources for clip in range(len(each))]
    first_of = lambda clip: int(clip[0].name(clip[1]).partition('#')[2])
    own = [clip for clip in clips if f'/{name}#' in clip[0].name(clip[1])]
    for source, clip in sorted(own, key=first_of):  # of both splits, as they follow each other
        first = first_of((source, clip))
        count, fps = source.num_frames(clip), source.fps(clip)
        frames = source.read(clip, range(count), labels=False)['frames']
        times = seconds[first] + np.arange(count) / fps
        found += wrong(frames, times, shown, seconds)
        seen += index_coded.numbers(frames)
        if windows.fitting(count, fps, 8, [3]):
            window = windows.evaluation_window(count, fps, 8, 3)
            frames = source.read(clip, window, labels=False)['frames']
            found += wrong(frames, times[window], shown, seconds)
    if list(dict.fromkeys(seen)) != list(shown):
        missing = sorted(set(shown) - set(seen))
        found.append(f'clips show {len(set(seen))} of {len(shown)} frames, not {missing[:5]}')
    return found


def told(what, failures, count):
    print(f'\n{what}: {count} files, {len(failures)} failures')
    for name, found in failures.items():
        print(f'  {name}: {len(found)}, {found[0]}')
    return not failures


def test_reads_are_nearest(made):
    found, _ = made
    assert len(found) >= 60
    size = index_coded.HEIGHT, index_coded.WIDTH
    failures = {name: bad for name, case in found.items() if (bad := wrong_reads(*case, size))}
    assert told('video.read', failures, len(found)), failures


@pytest.mark.long
def test_clips_and_records_are_nearest(made, tmp_path):
    found, folder = made
    size = index_coded.HEIGHT, index_coded.WIDTH
    for what, sources in both(folder, size, tmp_path / 'records'):
        failures = {
            name: bad
            for name, (_, *case) in found.items()
            if (bad := wrong_clips(sources, name, *case))
        }
        assert told(what, failures, len(found)), failures


def both(folder, size, out):
    """The clips of videos as they lie there, and as they are prepared, of both splits."""
    splits = 'train', 'validation'
    yield 'videos:', [Videos(folder, split, size) for split in splits]
    options = dict(image_format=None, quality=95, processes=1, strict=True)
    prepare.raw(out, 'video_folder', folder, size=size, **options)
    yield 'records', [records.Records(out, split) for split in splits]


@pytest.mark.skipif(not CASES.is_dir(), reason='the cases are not on this machine')
def test_real_cases(tmp_path):
    expected = json.loads((CASES / 'expected.json').read_text())
    (tmp_path / 'raw').mkdir()
    for name in expected:
        (tmp_path / 'raw' / name).symlink_to(CASES / name)
    prepared = dict(both(tmp_path, None, tmp_path / 'records'))
    failures = {}
    for name, about in expected.items():
        case = about['index'], np.array(about['seconds'])
        bad = wrong_reads(CASES / name, *case, tuple(about['size_shown_hw']))
        for sources in prepared.values():
            bad += wrong_clips(sources, name, *case)
        if bad:
            failures[name] = bad
    assert told('cases', failures, len(expected)), failures
