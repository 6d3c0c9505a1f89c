import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.generator import flow
from re2pix_jax.generator.conditioning import (
    check_channels,
    context_times,
    keep_first,
    mixed_places,
    mixed_supervision,
    nested_counts,
    nested_dropout,
    noised,
)

COMPONENTS = 1 + jax.random.uniform(jax.random.key(0), (300, 2, 1, 2, 20))


def test_counts():
    assert nested_counts('doublings', 1152) == (8, 16, 32, 64, 128, 256, 512, 1024, 1152)
    assert nested_counts('doublings', 144) == (8, 16, 32, 64, 128, 144)
    assert nested_counts('doublings', 64) == (8, 16, 32, 64)
    assert nested_counts('multiples', 1152) == tuple(range(8, 1153, 8))
    assert nested_counts('multiples', 20) == (8, 16, 20)
    assert nested_counts('doublings', 8) == nested_counts('multiples', 5 + 3) == (8,)
    assert nested_counts('doublings', 5) == nested_counts('multiples', 5) == (5,)


def test_unknown_counts_are_refused():
    with pytest.raises(
        ValueError, match="'halvings' is unknown; choose 'doublings' or 'multiples'"
    ):
        nested_counts('halvings', 64)
    with pytest.raises(ValueError, match='at least one component, got 0'):
        nested_counts('doublings', 0)


def test_dropout_keeps_a_prefix_for_all_frames_of_a_sample():
    counts = (4, 8, 20)
    dropped = nested_dropout(jax.random.key(1), COMPONENTS, counts)
    kept = np.asarray(dropped != 0)
    prefix = kept[:, :1, :1, :1]
    np.testing.assert_array_equal(kept, np.broadcast_to(prefix, kept.shape))
    lengths = prefix.reshape(300, 20).sum(-1)
    np.testing.assert_array_equal(prefix.reshape(300, 20), np.arange(20) < lengths[:, None])
    np.testing.assert_array_equal(np.where(kept, COMPONENTS, 0), dropped)
    values, numbers = np.unique(lengths, return_counts=True)
    assert tuple(values) == counts and numbers.min() > 70


def test_one_count_is_no_draw():
    np.testing.assert_array_equal(nested_dropout(jax.random.key(0), COMPONENTS, (20,)), COMPONENTS)


@pytest.mark.parametrize('counts', [(), (0, 8), (8, 21)])
def test_counts_outside_the_components_are_refused(counts):
    with pytest.raises(ValueError, match='non-empty set of numbers from 1 to 20'):
        nested_dropout(jax.random.key(0), COMPONENTS, counts)


def test_output_is_independent_of_dropped_channels():
    def output(components):
        return jnp.tanh(keep_first(components, 6)).sum()

    gradient = jnp.abs(jax.grad(output)(COMPONENTS)).reshape(-1, 20).max(0)
    assert gradient[:6].min() > 0 and gradient[6:].max() == 0
    # Not even through values that are not finite.
    spoilt = COMPONENTS.at[..., 6:].set(jnp.nan)
    assert jnp.isfinite(output(spoilt))


@pytest.mark.parametrize(
    'batch, fraction, expected', [(64, 0.1, 6), (8, 0.1, 1), (2, 0.1, 1), (8, 0.0, 0), (8, 1.0, 8)]
)
def test_number_of_predicted_clips(batch, fraction, expected):
    places = mixed_places(batch, fraction)
    assert len(places) == len(set(places)) == expected


@pytest.mark.parametrize('fraction', [0.1, 0.125, 0.25, 0.5, 0.8])
@pytest.mark.parametrize('batch', [8, 24, 64, 128])
def test_predicted_clips_are_spread_over_parts_and_devices(batch, fraction):
    """Parts hold every n-th clip, devices a block: each has as many as any other, within three."""
    places = np.array(mixed_places(batch, fraction))
    for count in (2, 3, 4, 8):
        if batch % count == 0:
            for owner in (places % count, places // (batch // count)):
                held = np.bincount(owner, minlength=count)
                assert held.max() - held.min() <= 3


def test_a_fraction_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match='fraction is 1.5; it must lie between 0 and 1'):
        mixed_places(8, 1.5)


def mixed(places, batch, fraction):
    """(what comes out for the clips at `places` of a batch, what stage 1 was given)"""
    context, future = COMPONENTS[:batch], COMPONENTS[batch : 2 * batch]
    given = []

    def predict(context):
        jax.debug.callback(lambda x: given.append(np.asarray(x)), context)
        return -2 * context

    run = jax.jit(lambda places, x, y: mixed_supervision(predict, x, y, fraction, places, batch))
    out = run(places, context[places], future[places])
    jax.effects_barrier()
    return np.asarray(out), given


@pytest.mark.parametrize('batch, fraction', [(10, 0.3), (8, 0.1), (9, 0.5), (64, 0.1), (4, 1.0)])
def test_predictions_replace_the_chosen_clips_and_run_on_nothing_else(batch, fraction):
    context, future = COMPONENTS[:batch], COMPONENTS[batch : 2 * batch]
    chosen = np.array(mixed_places(batch, fraction))
    others = np.setdiff1d(np.arange(batch), chosen)
    out, given = mixed(np.arange(batch), batch, fraction)
    np.testing.assert_array_equal(out[chosen], -2 * context[chosen])
    np.testing.assert_array_equal(out[others], future[others])
    np.testing.assert_array_equal(given, [context[chosen]])
    gradient = jax.grad(lambda x: mixed_supervision(lambda x: -2 * x, x, future, fraction).sum())(
        context
    )
    assert jnp.abs(gradient).max() == 0


@pytest.mark.long
@pytest.mark.parametrize('parts', [2, 4, 8, 32, 64])
def test_parts_of_a_batch_have_the_predictions_of_the_batch(parts):
    """The share is that of the global batch: at 2 clips a part it is not half of them. A part
    without a chosen clip does not ask stage 1 at all.
    """
    out, asked = np.zeros_like(COMPONENTS[:64]), []
    for part in range(parts):
        places = np.arange(part, 64, parts)
        out[places], given = mixed(places, 64, 0.1)
        asked.append(sum(map(len, given)))
    np.testing.assert_array_equal(out, mixed(np.arange(64), 64, 0.1)[0])
    holding = np.bincount(np.array(mixed_places(64, 0.1)) % parts, minlength=parts)
    np.testing.assert_array_equal(asked, holding.max() * (holding > 0))


def test_the_source_can_be_drawn_per_sample():
    context, future = COMPONENTS, COMPONENTS[::-1]
    seen = []

    def predict(context):
        seen.append(len(context))
        return -context

    draws = [
        mixed_supervision(
            predict,
            context,
            future,
            fraction,
            keys=jax.random.split(jax.random.key(seed), len(future)),
        )
        for fraction, seed in ((0.2, 0), (0.2, 1), (1.0, 0))
    ]
    predicted = [np.asarray(mixed == -context).all(axis=(1, 2, 3, 4)) for mixed in draws]
    for mixed, chosen in zip(draws, predicted):
        np.testing.assert_array_equal(
            mixed, np.where(chosen.reshape(-1, 1, 1, 1, 1), -context, future)
        )
    assert (
        30 < predicted[0].sum() < 90 and (predicted[0] != predicted[1]).any() and predicted[2].all()
    )
    assert seen == [300, 300, 300], 'stage 1 forecasts the whole batch'
    gradient = jax.grad(
        lambda x: mixed_supervision(
            predict, x, future, 0.2, keys=jax.random.split(jax.random.key(0), 300)
        ).sum()
    )(context)
    assert jnp.abs(gradient).max() == 0


@pytest.mark.parametrize('keys', [None, jax.random.split(jax.random.key(0), 4)])
def test_no_fraction_never_calls_the_predictor(keys):
    future = COMPONENTS[:4]
    never = lambda context: pytest.fail('stage 1 was asked')
    assert mixed_supervision(never, COMPONENTS[:4], future, 0.0, keys=keys) is future


def test_channels_at_inference_lie_between_one_and_all():
    assert [check_channels(channels, 20) for channels in (None, 20, 6)] == [20, 20, 6]
    np.testing.assert_array_equal(keep_first(COMPONENTS, 6), COMPONENTS.at[..., 6:].set(0))
    for channels in (0, -1, 21):
        with pytest.raises(
            ValueError,
            match=f'channels: {channels} of 20 components were asked for; give a number from 1 to '
            '20',
        ):
            check_channels(channels, 20)


def test_half_of_the_contexts_are_clean_and_others_from_some_frame_on_at_one_time():
    draw = jax.vmap(lambda key: context_times(key, 4, 0.3))
    times = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    clean = (times == 1).sum(1)
    assert (clean == 4).mean() == pytest.approx(0.5, abs=0.04)
    for count in range(4):
        assert (clean == count).mean() == pytest.approx(0.125, abs=0.03)
        rest = times[clean == count, count:]
        assert (times[clean == count, :count] == 1).all() and (rest == rest[:, :1]).all()
        assert rest.min() >= 0.7 and rest.mean() == pytest.approx(0.85, abs=0.03)


@pytest.mark.parametrize('diffusion', [flow.FLOW, flow.Diffusion('ddpm')])
def test_noise_on_the_context_is_that_of_its_times(diffusion):
    keys, latents = jax.random.split(jax.random.key(0), 2), jnp.full((2, 3, 16, 16, 4), 2.0)
    t = jnp.array([[1.0, 1.0, 0.8], [1.0, 0.6, 0.6]])
    found = noised(keys, latents, t, diffusion)
    np.testing.assert_array_equal(found[t == 1], latents[t == 1])
    at = diffusion.at(t, t)
    np.testing.assert_allclose(found.mean((2, 3, 4)), 2 * at.a, atol=0.1)
    np.testing.assert_allclose(found.std((2, 3, 4)), at.s, atol=0.05)
    future = jax.random.normal(keys[0], latents.shape[1:])  # the noise of its future is another one
    assert abs(np.corrcoef((found[0] - latents[0])[2].ravel(), future[2].ravel())[0, 1]) < 0.1
