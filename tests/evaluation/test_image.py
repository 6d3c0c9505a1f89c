"""PSNR and SSIM against plain numpy and scipy."""

import numpy as np
import pytest
import scipy.ndimage

from re2pix_jax.evaluation.evaluators import image


def pair(shape, noise=20, seed=0):
    rng = np.random.default_rng(seed)
    smooth = scipy.ndimage.gaussian_filter(
        rng.normal(size=shape), (0,) * (len(shape) - 3) + (2, 2, 0)
    )
    truth = np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)
    return np.clip(truth + rng.normal(0, noise, shape), 0, 255).astype(np.uint8), truth


def reference_ssim(x, y):
    """One channel, by scipy's Gaussian (truncate 3.5 makes an 11-pixel window), cropped to where
    the window fits.
    """
    blur = lambda a: scipy.ndimage.gaussian_filter(a, 1.5, truncate=3.5)
    x, y = x.astype(np.float64), y.astype(np.float64)
    ux, uy = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - ux**2, blur(y * y) - uy**2, blur(x * y) - ux * uy
    c1, c2 = 0.01**2 * 255**2, 0.03**2 * 255**2
    s = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
    return s[5:-5, 5:-5].mean()


def test_psnr_is_that_of_each_frame():
    prediction, truth = pair((2, 3, 20, 30, 3))
    found = image.psnr(prediction, truth)
    assert found.shape == (2, 3)
    for index in np.ndindex(2, 3):
        error = np.mean((prediction[index].astype(float) - truth[index].astype(float)) ** 2)
        assert found[index] == pytest.approx(10 * np.log10(255**2 / error), rel=3e-7)


def test_psnr_of_known_errors():
    black = np.zeros((16, 16, 3), np.uint8)
    assert image.psnr(black, black) == image.CEILING
    assert image.psnr(black + np.uint8(255), black) == pytest.approx(0.0, abs=1e-6)
    assert image.psnr(black + np.uint8(1), black) == pytest.approx(48.1308, abs=1e-4)


@pytest.mark.parametrize('noise', [2, 40])
def test_ssim_matches_scipy(noise):
    prediction, truth = pair((2, 2, 40, 56, 3), noise)
    found = image.ssim(prediction, truth)
    for index in np.ndindex(2, 2):
        expected = np.mean(
            [reference_ssim(prediction[index][..., c], truth[index][..., c]) for c in range(3)]
        )
        assert found[index] == pytest.approx(expected, abs=2e-5)


def test_ssim_of_bright_flat_frames_keeps_its_variance():
    rng = np.random.default_rng(1)
    truth = (250 + rng.integers(0, 2, (1, 24, 24, 3))).astype(np.uint8)
    prediction = (250 + rng.integers(0, 2, (1, 24, 24, 3))).astype(np.uint8)
    expected = np.mean([reference_ssim(prediction[0, ..., c], truth[0, ..., c]) for c in range(3)])
    assert image.ssim(prediction, truth)[0] == pytest.approx(expected, abs=2e-5)


def test_ssim_of_equal_frames_is_one_and_symmetric():
    prediction, truth = pair((1, 16, 16, 3))
    assert image.ssim(truth, truth)[0] == pytest.approx(1.0, abs=1e-6)
    both = [float(image.ssim(*pair)[0]) for pair in ((truth, prediction), (prediction, truth))]
    assert both[0] == pytest.approx(both[1], abs=1e-6)


@pytest.mark.parametrize(
    'prediction, truth, message',
    [
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8), 'one shape'),
        (np.zeros((16, 16, 1), np.uint8), np.zeros((16, 16, 1), np.uint8), r'\[..., H, W, 3\]'),
        (np.zeros((16, 16, 3), np.float32), np.zeros((16, 16, 3), np.uint8), 'uint8'),
    ],
)
def test_other_arrays_are_refused(prediction, truth, message):
    for metric in (image.psnr, image.ssim):
        with pytest.raises(ValueError, match=message):
            metric(prediction, truth)


def test_ssim_refuses_frames_smaller_than_its_window():
    with pytest.raises(ValueError, match='at least 11x11'):
        image.ssim(np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8))
