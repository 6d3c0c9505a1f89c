"""Footage damaged at random: each file is read, or refused in one line.

Nothing else may come of it: no other error, no file that takes long, no memory beyond the clip.
"""

import collections
import random
import resource
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import video
from re2pix_jax.errors import UserError
from tests.data import index_coded

TRIES = 2000
QUICK = 130  # without --slow
SECONDS = 30  # of computing that one file may take
MEGABYTES = 700  # that all files together may take; the largest frame that is shown takes 200
VALUES = (0, 1, 0x7F, 0x80, 0xFF)
IMAGES = ('png', 'jpg', 'webp', 'tif', 'bmp', 'ppm')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Files and folders of every kind, undamaged."""
    folder = tmp_path_factory.mktemp('whole')
    seconds = np.arange(24) / 25
    for ending in index_coded.CODERS:
        b_frames = 2 * (index_coded.CODERS[ending] == 'libx264')
        index_coded.write(folder / f'a.{ending}', range(24), seconds, b_frames=b_frames, gop=8)
    for ending in IMAGES:
        (folder / ending).mkdir()
        for number in range(4):
            picture = Image.fromarray(index_coded.picture(number))
            exif = Image.Exif()
            exif[0x0112] = 6
            options = {'exif': exif} if ending in ('png', 'jpg', 'webp') else {}
            picture.save(folder / ending / f'{number}.{ending}', **options)
    return sorted(folder.iterdir())


def damage(rng, content: bytes) -> bytes:
    """One to three wounds: bytes, numbers, holes, cuts, doubles, most of them near the beginning,
    where headers lie.
    """
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        reach = len(data) if rng.random() < 0.5 else min(len(data), 800)
        place, length = rng.randrange(max(1, reach)), rng.choice([1, 2, 4, 8, 64, 512])
        kind = rng.randrange(6)
        if kind == 0:
            data[place : place + 1] = bytes([rng.choice([*VALUES, rng.randrange(256)])])
        elif kind == 1:
            number = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)])
            data[place : place + 4] = number.to_bytes(4, rng.choice(['big', 'little']))
        elif kind == 2:
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        else:
            del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def damaged(rng, source, place):
    """A copy of a file or folder with wounds."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    copy = place / source.name
    if source.is_file():
        copy.write_bytes(damage(rng, source.read_bytes()))
        return copy
    shutil.copytree(source, copy)
    for file in rng.sample(sorted(copy.iterdir()), rng.randint(1, 3)):
        what = rng.randrange(6)
        if what == 0:
            file.rename(copy / rng.choice(['1.png', '01.png', 'x.jpg', '7.heic', '._2.png', '9.']))
        elif what == 1:
            file.unlink()
            file.symlink_to(rng.choice([copy, place / 'nowhere', source / file.name]))
        elif what == 2:
            file.write_bytes(b'')
        else:
            file.write_bytes(damage(rng, file.read_bytes()))
    return copy


def late(*_):
    raise AssertionError('takes too long')


def test_damaged_footage_is_read_or_refused(whole, tmp_path, request):
    tries = TRIES if request.config.getoption('--slow') else QUICK
    counts, longest = collections.Counter(), 0.0
    signal.signal(signal.SIGPROF, late)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for number in range(tries):
            rng = random.Random(number)
            path = damaged(rng, whole[number % len(whole)], tmp_path / 'damaged')
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            began = time.process_time()
            for options in (
                {},
                {'fps': 10, 'start': 0.3, 'max_frames': 20, 'size': (32, 64)},
                {'fps': 6, 'size': (16, 32)},
            ):
                try:
                    clip = video.read(path, **options)
                    assert clip.dtype == np.uint8 and clip.ndim == 4 and len(clip)
                    counts['read'] += not options
                except UserError as error:
                    assert str(error).count('\n') == 0 and str(path) in str(error), str(error)
                    counts['refused'] += not options
            longest = max(longest, time.process_time() - began)
            signal.setitimer(signal.ITIMER_PROF, 0)
    except Exception as error:
        raise AssertionError(f'{number}: {path.name}: {error!r}') from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f'footage: {tries} tried, {counts["refused"]} refused, {counts["read"]} read; the slowest '
        f'took {longest:.1f} s, memory grew by {grown:.0f} MB',
        file=sys.stderr,
    )
    assert counts['read'] and counts['refused'] and grown < MEGABYTES
