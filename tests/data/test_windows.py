"""Windows, crops and flips: uniform where they should be, equal for the whole clip, repeatable."""

import numpy as np
import pytest

from re2pix_jax.data import windows
from re2pix_jax.errors import UserError


def generators(count):
    return (windows.generator(0, 0, record) for record in range(count))


def coordinates(frames=3, height=40, width=80):
    """A clip whose pixels say where they are: red the column, green the row, blue the frame."""
    time, row, column = np.indices((frames, height, width))
    clip = np.stack([column, row, time], -1).astype(np.uint8)
    return {'frames': clip, 'labels': clip[..., 0], 'depth': clip[..., 1].astype(np.float32)}


@pytest.mark.parametrize(
    'stride, fps, native',
    [
        (3, 17, 3),
        (1, 17, 1),
        (3, 25, 4),
        (3, 30, 5),
        (2, 30, 4),
        (4, 30, 7),
        (3, 12, 2),
        (2, 10, 1),
        (3, 5, 1),
    ],
)
def test_strides_count_in_units_of_17_hz(stride, fps, native):
    assert windows.native_stride(stride, fps) == native


def test_a_video_too_slow_for_the_stride_is_refused():
    with pytest.raises(UserError, match="frame rate that the stride can't be made from"):
        windows.native_stride(1, 10)


def test_windows_are_uniform_in_stride_and_start():
    drawn = np.array([windows.window(rng, 30, 17, 8, (2, 3, 4)) for rng in generators(3000)])
    strides = drawn[:, 1] - drawn[:, 0]
    assert (np.diff(drawn, axis=1) == strides[:, None]).all()
    assert drawn.min() == 0 and drawn.max() == 29
    assert np.abs(np.bincount(strides, minlength=5)[2:] / 3000 - 1 / 3).max() < 0.04
    starts = np.bincount(drawn[strides == 3, 0], minlength=9)
    assert len(starts) == 9 and np.abs(starts / starts.sum() - 1 / 9).max() < 0.04


def test_only_strides_that_fit_are_drawn():
    assert {windows.window(rng, 16, 17, 8, (2, 3, 4))[-1] for rng in generators(50)} == {14, 15}
    assert windows.fitting(22, 17, 8, (2, 3, 4)) == (2, 3)


def test_too_short_clips_are_refused():
    with pytest.raises(
        UserError,
        match='14 frames at 17 frames per second are too few: 8 frames at stride 2 need 15',
    ):
        windows.window(windows.generator(0, 0, 0), 14, 17, 8, (2, 3))
    with pytest.raises(UserError, match='5 frames at stride 3 need 20'):
        windows.evaluation_window(19, 17, 5, 3, start=7)


def test_evaluation_windows_are_fixed():
    assert windows.evaluation_window(30, 17, 5, 3, start=7).tolist() == [
        7,
        10,
        13,
        16,
        19,
    ]  # Cityscapes, short-term
    assert windows.evaluation_window(44, 25, 3, 3).tolist() == [0, 4, 8]


def test_crops_keep_the_aspect_and_stay_inside():
    boxes = [windows.crop(rng, 100, 300, (64, 128), (0.5, 1.0)) for rng in generators(2000)]
    heights = np.array([box.height for box in boxes])
    assert all(abs(box.width / box.height - 2) < 0.05 for box in boxes)
    assert all(
        box.top >= 0
        and box.left >= 0
        and box.top + box.height <= 100
        and box.left + box.width <= 300
        for box in boxes
    )
    assert heights.min() <= 52 and heights.max() >= 98 and abs(heights.mean() - 75) < 2
    assert max(box.left + box.width for box in boxes) > 295 and min(box.left for box in boxes) < 5
    assert windows.crop(windows.generator(0, 0, 0), 64, 128, (64, 128), (1, 1)) == (0, 0, 64, 128)


def test_frames_labels_and_depth_are_cut_alike():
    clip, box = coordinates(), windows.Box(4, 10, 30, 60)
    out = windows.apply(clip, box, (15, 30))
    assert out['frames'].shape == (3, 15, 30, 3)
    assert out['labels'].shape == out['depth'].shape == (3, 15, 30)
    # Half the size: a pixel covers two, the nearest of which is at most half a pixel (of two) off
    # its mean.
    assert (
        np.abs(out['frames'][:, 2:-2, 2:-2, 0] - out['labels'][:, 2:-2, 2:-2].astype(float)).max()
        <= 1
    )
    assert np.abs(out['frames'][:, 2:-2, 2:-2, 1] - out['depth'][:, 2:-2, 2:-2]).max() <= 1
    assert out['labels'].min() == 11 and out['labels'].max() == 69
    assert (
        set(np.unique(out['labels'])) <= set(np.unique(clip['labels']))
        and out['depth'].dtype == np.float32
    )
    assert (out['frames'][..., 2] == np.arange(3)[:, None, None]).all()


def test_a_flip_mirrors_everything():
    clip, box = coordinates(), windows.Box(0, 0, 40, 80)
    straight, flipped = (windows.apply(clip, box, (40, 80), flip) for flip in (False, True))
    for name in clip:
        np.testing.assert_array_equal(flipped[name][:, :, ::-1], straight[name])


def test_nothing_is_resampled_at_the_right_size():
    clip = coordinates()
    same = windows.apply(clip, windows.centre_box(40, 80, (40, 80)), (40, 80))
    assert all(same[name] is clip[name] for name in clip)
    cut = windows.resize(clip['frames'], windows.Box(3, 5, 20, 40), (20, 40))
    np.testing.assert_array_equal(cut, clip['frames'][:, 3:23, 5:45])


def test_the_generator_depends_on_seed_epoch_and_record():
    draws = {windows.generator(*key).random() for key in np.ndindex(3, 3, 3)}
    assert len(draws) == 27
    assert windows.generator(1, 2, 3 << 40).random() == windows.generator(1, 2, 3 << 40).random()
