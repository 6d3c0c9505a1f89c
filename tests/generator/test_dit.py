import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from re2pix_jax.generator import SpaceTimeDiT, flow
from re2pix_jax.generator.dit import patchify, unpatchify
from re2pix_jax.nn import layers

NET = SpaceTimeDiT(
    latent_channels=3,
    latent_grid=(4, 6),
    patch_size=2,
    components=10,
    width=24,
    depth=2,
    heads=2,
    context_frames=3,
    future_frames=2,
    ffn_multiple=8,
)
apply = jax.jit(NET.apply)  # one compilation for all tests


def draw_params(net, seed=0):
    """Parameters without the zero initialisation, under which nearly everything would be equal."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.example())
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), jnp.float32), shapes
    )


def draw_inputs(net, batch=2, seed=1):
    generator = np.random.default_rng(seed)
    inputs = jax.tree.map(
        lambda x: jnp.asarray(generator.normal(size=x.shape), jnp.float32), list(net.example(batch))
    )
    inputs[2] = jnp.asarray(generator.uniform(size=batch), jnp.float32)
    return inputs


@pytest.fixture(scope='module')
def params():
    return draw_params(NET)


# An independent statement of the network: one sequence of M + F frames, every token with its own
# time, and a mask that keeps context queries from future keys. Numpy in float64, no cache, no
# shared code.


def dense(p, x):
    return x @ p['kernel'] + p.get('bias', 0)


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def turn(x, angles):
    """x [..., d], angles [..., d / 2], as complex numbers."""
    first, second = np.split(x, 2, axis=-1)
    turned = (first + 1j * second) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attention(p, x, angles, heads, mask):
    """x [T, N, D] over the first axis."""
    d = x.shape[-1] // heads
    query, key, value = (
        part.reshape(*x.shape[:2], heads, d) for part in np.split(dense(p['qkv'], x), 3, axis=-1)
    )
    query, key = (turn(rms(part), angles[:, None, None]) for part in (query, key))
    scores = np.einsum('qnhd,knhd->nhqk', query, key) / np.sqrt(d)
    weights = np.exp(np.where(mask, scores, -np.inf))
    weights /= weights.sum(-1, keepdims=True)
    return dense(p['out'], np.einsum('nhqk,knhd->qnhd', weights, value).reshape(x.shape))


def naive(net, params, context_latents, noisy_latents, t, context_components, future_components):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)['params']
    frames, (h, w) = net.context_frames + net.future_frames, (side // 2 for side in net.latent_grid)
    latents = np.concatenate([context_latents, noisy_latents], axis=1)
    times = np.where(np.arange(frames) < net.context_frames, 1.0, np.asarray(t)[:, None])  # [B, T]
    mask = (np.arange(frames) < net.context_frames)[None, :] | (
        np.arange(frames) >= net.context_frames
    )[:, None]
    head = net.width // net.heads
    time_angles = np.arange(frames)[:, None] * 10_000.0 ** (-np.arange(head // 2) / (head // 2))
    rates = 10_000.0 ** (-np.arange(head // 4) / (head // 4))
    space_angles = np.stack(
        [np.concatenate([row * rates, column * rates]) for row in range(h) for column in range(w)]
    )

    outputs = []
    for index in range(latents.shape[0]):
        patches = (
            np.stack(
                [
                    [
                        latents[index, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(frames, -1)
                        for j in range(w)
                    ]
                    for i in range(h)
                ]
            )
            .reshape(h * w, frames, -1)
            .swapaxes(0, 1)
        )
        x = dense(p['embed'], patches)
        if net.components:
            both = np.concatenate([context_components[index], future_components[index]])
            x = x + dense(p['fusion']['embed'], both.reshape(frames, h * w, -1).astype(np.float64))
        angles = 1000 * times[index][:, None] * 10_000.0 ** (-np.arange(128) / 128)
        embedding = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
        embedding = dense(
            p['time_embedding']['outer'], silu(dense(p['time_embedding']['inner'], embedding))
        )
        shared = np.split(dense(p['modulation']['linear'], silu(embedding))[:, None], 9, axis=-1)
        for layer in range(net.depth):
            q = jax.tree.map(operator.itemgetter(layer), p['layers'])
            y = rms(x) * q['time_norm']['scale'] * (1 + shared[1]) + shared[0]
            x = x + shared[2] * attention(q['time'], y, time_angles, net.heads, mask)
            y = rms(x) * q['space_norm']['scale'] * (1 + shared[4]) + shared[3]
            y = attention(
                q['space'], y.swapaxes(0, 1), space_angles, net.heads, np.ones((h * w, h * w), bool)
            )
            x = x + shared[5] * y.swapaxes(0, 1)
            y = rms(x) * q['ff_norm']['scale'] * (1 + shared[7]) + shared[6]
            gate, value = np.split(dense(q['ff']['w12'], y), 2, axis=-1)
            x = x + shared[8] * dense(q['ff']['w3'], silu(gate) * value)
        shift, scale = np.split(
            dense(p['final_modulation']['linear'], silu(embedding))[:, None], 2, axis=-1
        )
        x = dense(p['out'], rms(x) * p['final_norm']['scale'] * (1 + scale) + shift)[
            net.context_frames :
        ]
        output = np.zeros(noisy_latents.shape[1:])
        for n in range(h * w):
            i, j = divmod(n, w)
            output[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = x[:, n].reshape(
                -1, 2, 2, net.latent_channels
            )
        outputs.append(output)
    return np.stack(outputs)


@pytest.mark.parametrize('net', [NET, NET.clone(components=0)], ids=['features', 'baseline'])
def test_two_streams_equal_one_masked_sequence(net):
    # The baseline is given components too: it must ignore them.
    params, inputs = draw_params(net), draw_inputs(NET)
    assert ('fusion' in params['params']) == bool(net.components)
    expected = naive(net, params, *inputs)
    assert np.abs(expected).std() > 0.1
    actual = (apply if net == NET else jax.jit(net.apply))(params, *inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_prediction_depends_on_every_frame_of_its_own_sample_only(params):
    inputs = draw_inputs(NET)
    usual = apply(params, *inputs)
    for index, array in enumerate(inputs):
        for frame in range(array.shape[1]) if array.ndim > 1 else [...]:
            changed = apply(
                params, *inputs[:index], array.at[0, frame].add(0.1), *inputs[index + 1 :]
            )
            assert (
                float(jnp.abs(changed[0] - usual[0]).reshape(NET.future_frames, -1).max(-1).min())
                > 1e-4
            )
            np.testing.assert_array_equal(changed[1], usual[1])


def test_remat_computes_the_forward_pass_twice(params):
    def products(net):
        loss = jax.grad(lambda params: net.apply(params, *draw_inputs(NET)).sum())
        return str(jax.make_jaxpr(loss)(params)).count('dot_general')

    # Eight matrix products a block (with those inside attention), in either stream.
    assert products(NET.clone(remat=True)) >= products(NET) + 2 * 8


@pytest.mark.parametrize(
    'fields',
    [{}, {'unroll': True}, {'attention': 'joint', 'unroll': True}, {'depth': 1, 'unroll': True}],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_parameters_for_sampling_compute_the_same(fields, dtype):
    net = NET.clone(dtype=dtype, **fields)
    params, (context, noisy, t, *components) = draw_params(net), draw_inputs(net)

    @jax.jit
    def evaluate(params):
        cache = net.apply(params, context, components[0], method='context')
        return net.apply(params, cache, noisy, t, components[1], method='denoise')

    lighter = net.for_sampling(params)
    assert (
        lighter['params']['embed']['kernel'].dtype == dtype
        and lighter['params']['final_norm']['scale'].dtype == jnp.float32
    )
    usual = evaluate(params)
    np.testing.assert_allclose(
        evaluate(lighter),
        usual,
        atol=(1e-5 if dtype == 'float32' else 1e-2) * float(jnp.abs(usual).max()),
    )


def test_a_layer_keeps_products_for_the_backward_pass_and_no_more(monkeypatch):
    def kept(net):
        params, inputs = jax.eval_shape(
            lambda: (net.init(jax.random.key(0), *net.example()), net.example(64))
        )
        residuals = jax.eval_shape(
            lambda params, inputs: jax.vjp(lambda p: net.apply(p, *inputs), params)[1],
            params,
            inputs,
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

    net = NET.clone(dtype='bfloat16', depth=6)
    usual, least = kept(net), kept(net.clone(remat=True))
    monkeypatch.setitem(layers.KEPT, 'products', jax.checkpoint_policies.everything_saveable)
    assert 2 * least < usual < 0.6 * kept(net)


def test_cache_is_independent_of_the_future(params):
    context, *future, context_components, future_components = draw_inputs(NET)
    future = (*future, future_components)

    def cache(noisy, t, future_components):
        _, state = NET.apply(
            params,
            context,
            noisy,
            t,
            context_components,
            future_components,
            capture_intermediates=lambda module, name: name == 'context',
            mutable='intermediates',
        )
        return state['intermediates']['context'][0]

    value, tangent = jax.jit(
        lambda future: jax.jvp(cache, future, jax.tree.map(jnp.ones_like, future))
    )(future)
    assert [x.shape for x in value] == 2 * [(2, 2, 6, 3, 2, 12)]
    assert all(float(jnp.abs(x).max()) > 0 for x in value) and all(
        float(jnp.abs(x).max()) == 0 for x in tangent
    )


def test_adaln_zero_starts_as_nothing():
    params = jax.jit(NET.init)(jax.random.key(0), *NET.example())
    context, noisy, t, *components = draw_inputs(NET)
    assert float(jnp.abs(apply(params, context, noisy, t, *components)).max()) == 0
    # Not because all is lost: with an output layer the blocks are still the identity, whatever the
    # time.
    params['params']['out']['kernel'] = jnp.ones_like(params['params']['out']['kernel'])
    at = [apply(params, context, noisy, jnp.full(2, time), *components) for time in (0.1, 0.9)]
    assert float(jnp.abs(at[0]).max()) > 0.1
    np.testing.assert_array_equal(*at)


def test_patchify_round_trip_and_order():
    latents = jax.random.normal(jax.random.key(0), (2, 3, 4, 6, 5))
    patches = patchify(latents, 2)
    assert patches.shape == (2, 3, 2, 3, 20)
    np.testing.assert_array_equal(patches[1, 2, 1, 2], latents[1, 2, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, 2), latents)


def test_hidden_width_of_the_published_size():
    net = SpaceTimeDiT(
        latent_channels=4,
        latent_grid=(32, 64),
        patch_size=2,
        components=1152,
        width=1152,
        depth=12,
        heads=8,
        context_frames=4,
        future_frames=4,
    )
    layers = jax.eval_shape(net.init, jax.random.key(0), *net.example())['params']['layers']
    assert layers['ff']['w3']['kernel'].shape == (12, 3072, 1152)
    assert layers['time']['qkv']['kernel'].shape == (12, 1152, 3 * 1152)


def test_inputs_that_do_not_fit_are_refused(params):
    inputs = draw_inputs(NET)

    def call(net=NET, **changes):
        names = ('context', 'noisy', 't', 'context_components', 'future_components')
        jax.eval_shape(net.apply, params, *(changes.get(name, x) for name, x in zip(names, inputs)))

    with pytest.raises(
        ValueError, match=r'expected context latents .* \(B, 3, 4, 6, 3\), got \(2, 2, 4, 6, 3\)'
    ):
        call(context=inputs[0][:, 1:])
    with pytest.raises(ValueError, match='expected future latents'):
        call(noisy=inputs[1][..., :2])
    with pytest.raises(ValueError, match='conditioned on 10 components but was given none'):
        call(future_components=None)
    with pytest.raises(ValueError, match=r'P = 10, got shape \(2, 3, 2, 3, 9\)'):
        call(context_components=inputs[3][..., :9])
    with pytest.raises(ValueError, match=r'width 20 must be a multiple of 4 \* heads = 8'):
        call(net=NET.clone(width=20))
    with pytest.raises(
        ValueError, match=r'latent grid \(5, 6\) must be a multiple of patch_size 2'
    ):
        call(net=NET.clone(latent_grid=(5, 6)))


def test_memorises_a_toy_clip():
    """One clip under fresh noise in every step: the error falls far below that of predicting
    nothing.
    """
    net = NET.clone(depth=1)
    params, (context, clean, _, *components) = draw_params(net), draw_inputs(net, batch=1)
    optimiser = optax.adam(1e-2)

    def loss(params, key):
        t = jnp.linspace(0.1, 0.6, 4)
        noisy = flow.interpolate(clean, jax.random.normal(key, (4, *clean.shape[1:])), t)
        context_latents, *both_components = (
            jnp.repeat(x, 4, axis=0) for x in (context, *components)
        )
        return jnp.square(
            net.apply(params, context_latents, noisy, t, *both_components) - clean
        ).mean()

    def step(state, key):
        params, optimiser_state = state
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state)
        return (optax.apply_updates(params, updates), optimiser_state), value

    keys = jax.random.split(jax.random.key(0), 150)
    _, losses = jax.jit(lambda state: jax.lax.scan(step, state, keys))(
        (params, optimiser.init(params))
    )
    assert losses[-10:].mean() < 0.1 * float(jnp.square(clean).mean())
