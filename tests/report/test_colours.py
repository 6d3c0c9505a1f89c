import numpy as np

from re2pix_jax.cityscapes import COLOURS
from re2pix_jax.report import colours


def test_the_context_sets_the_scale():
    reference = np.linspace(0, 1, 101)[None, None, :, None] * np.ones((1, 1, 1, 4))
    components = np.array([-5, 0.02, 0.26, 0.98, 9])[None, None, :, None] * np.ones((1, 1, 1, 4))
    found = colours.principal_colours(components, reference)
    assert found.shape == (1, 1, 5, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[0, 0, :, 0], [0, 0, 64, 255, 255])


def test_one_value_has_one_colour_in_every_frame():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(4, 3, 5, 6))
    alone = colours.principal_colours(reference[:1], reference)
    among = colours.principal_colours(
        np.concatenate([reference[:1], 50 * reference[1:]]), reference
    )
    np.testing.assert_array_equal(alone[0], among[0])


def test_patches_stay_squares_unless_smooth():
    components = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    flat = colours.principal_colours(components, components, (12, 20))
    np.testing.assert_array_equal(
        flat, colours.principal_colours(components, components).repeat(4, 1).repeat(4, 2)
    )
    smooth = colours.principal_colours(components, components, (12, 20), smooth=True)
    assert smooth.shape == flat.shape
    assert (
        np.abs(np.diff(smooth.astype(int), axis=2)).mean()
        < np.abs(np.diff(flat.astype(int), axis=2)).max() / 4
    )


def test_few_or_constant_components_are_grey():
    found = colours.principal_colours(np.ones((1, 2, 2, 2)), np.ones((1, 2, 2, 2)))
    assert found.shape == (1, 2, 2, 3) and (found == 128).all()


def test_labels_have_cityscapes_colours():
    found = colours.label_colours(np.array([[0, 13, 18, 255, 30]], np.uint8))
    np.testing.assert_array_equal(
        found[0], [COLOURS[0], COLOURS[13], COLOURS[18], [0, 0, 0], [0, 0, 0]]
    )
