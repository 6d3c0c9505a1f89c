"""What is predicted of several videos, and what each prediction is called."""

import types

import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.moments import moments
from tests.data import index_coded


@pytest.fixture
def made(tmp_path):
    """Makes files below a folder and gives their paths."""

    def make(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'no video')
        return paths

    return make


def names(paths, **options):
    return [moment.name for moment in moments(None, paths, **options)]


def test_names_are_as_much_of_the_path_as_tells_videos_apart(made):
    assert names(made('a/one.mp4', 'b/two.mp4')) == ['one.mp4', 'two.mp4']
    assert names(made('a/x.mp4', 'b/x.mp4', 'b/y.mp4')) == ['a/x.mp4', 'b/x.mp4', 'y.mp4']
    assert names(made('c/a/x.mp4', 'd/a/x.mp4')) == ['c/a/x.mp4', 'd/a/x.mp4']
    # As folders they would be one: their slashes become underscores.
    alike = names(made('e/f_g.mp4', 'e_f/g.mp4', 'e/f/g.mp4'))
    assert len({name.replace('/', '_') for name in alike}) == 3


def test_a_video_that_is_named_twice_is_predicted_once(made, tmp_path):
    (path,) = made('a/x.mp4')
    (tmp_path / 'link.mp4').symlink_to(path)
    assert names([path, tmp_path / 'a' / '..' / 'a' / 'x.mp4', tmp_path / 'link.mp4']) == ['x.mp4']


def test_what_was_named_costs_more_than_what_was_found(made, tmp_path):
    (path, _) = made('a/x.mp4', 'b/y.mp4')
    found = moments(None, [path, tmp_path / 'b'])
    assert [(moment.name, moment.cost) for moment in found] == [('x.mp4', 2), ('b/y.mp4', 1)]


def test_a_first_moment_in_a_pause_is_no_loss_where_others_follow(tmp_path):
    times = [k / 17 for k in range(5)] + [2 + k / 17 for k in range(80)]
    path = tmp_path / 'early.mp4'
    index_coded.write(path, range(85), np.array(times))
    model = types.SimpleNamespace(context_frames=4, fps=17 / 3)
    starts = lambda **options: [moment.start for moment in moments(model, [path], **options)]
    assert starts() == [0.0]  # whose error says which starts there are
    assert starts(every=1.0) == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_steps_are_long_enough_to_have_names(made):
    with pytest.raises(UserError, match=r'--every=0.05: expected at least 0.1 seconds'):
        moments(None, made('x.mp4'), every=0.05)
