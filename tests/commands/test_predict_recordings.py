"""`re2pix predict` on recordings as they are: folders with two frames of one number, pauses, flags
that say something of what is not there.
"""

import numpy as np
import pytest

from tests.data import index_coded
from tests.data.test_folders import fill
from tests.running import outcomes

BAD = {
    'doubled': ('--video={dir}/doubled', 'are two frames of one number; keep one of them, or give'),
    'paused': (
        '--video={dir}/paused.mp4 --start=0.9',
        '4 frames at 5.67 per second from 0.9 s on cross the cut after 0.97 s, where the recording '
        'pauses or another begins; start at most 0.43 s or at least 4 s into it',
    ),
    'every': ('--world=validation:0 --every=1', '--every: is of a video, and none is given'),
    'world rate': (
        '--world=validation:0 --folder_fps=5',
        '--folder_fps: is of a folder of images, and none is given; leave it out',
    ),
    'video rate': ('--video={dir}/paused.mp4 --folder_fps=5', '--folder_fps: is of a folder of im'),
}


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recordings')
    fill(folder / 'doubled', [f'f_{k}.png' for k in range(30)] + ['f_05.png'])
    seconds = np.concatenate([np.arange(30) / 30, 4 + np.arange(30) / 30])
    index_coded.write(folder / 'paused.mp4', range(60), seconds)
    lines = {
        name: [f'--out={folder}/out', *line.format(dir=folder).split()]
        for name, (line, _) in BAD.items()
    }
    return outcomes('predict', lines), folder


@pytest.mark.parametrize('name', BAD)
def test_it_ends_in_one_line_and_leaves_nothing(found, name):
    (status, out, err), folder = found[0][name], found[1]
    (error,) = [line for line in err.splitlines() if line.startswith('error: ')]
    assert (status, out) == (2, '') and BAD[name][1] in error, err
    assert not (folder / 'out').exists()
