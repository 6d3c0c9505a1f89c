"""What a step asks of the devices, counted, and what is known of their peaks."""

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax.nn import attention
from re2pix_jax.training import hardware


def counted(f, *arguments):
    return hardware.flops(jax.make_jaxpr(f)(*arguments))


X, W = jnp.ones((3, 8, 16)), jnp.ones((16, 32))


def test_products_and_convolutions():
    assert counted(lambda x, w: x @ w, X, W) == 2 * 3 * 8 * 16 * 32
    batched = counted(lambda x: jnp.einsum('bnc,bmc->bnm', x, x), X)
    assert batched == 2 * 3 * 8 * 8 * 16
    image, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 2, 6))
    grouped = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2
    )
    # Along each axis 4 places meet 3 elements each, but for the last one, which meets padding.
    assert counted(grouped, image, kernel) == 2 * (2 * 6) * 11**2 * 2


def test_loops_count_as_often_as_they_run_and_branches_once():
    square = jnp.ones((16, 16))
    one = 2 * 16**3

    def loop(x):
        return jax.lax.scan(lambda x, _: (x @ square, None), x, None, length=5)[0]

    assert counted(loop, square) == 5 * one
    # Forward, and backward one product for x alone.
    assert counted(jax.grad(lambda x: loop(x).sum()), square) == 10 * one
    branches = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)
    assert counted(jax.jit(branches), square) == 2 * one
    again = jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(x @ square))(x).sum())
    assert counted(again, square) == 3 * one


def test_of_what_is_written_for_several_platforms_that_of_one_counts():
    twice, once = lambda x: x @ x @ x, lambda x: x @ x

    def loss(x):
        return jax.lax.platform_dependent(x, cpu=twice, cuda=jnp.sin, default=once).sum()

    traced = jax.make_jaxpr(jax.grad(jax.checkpoint(loss)))(jnp.ones((16, 16)))
    counts = {name: hardware.flops(traced, name) / (2 * 16**3) for name in ('cpu', 'cuda', 'tpu')}
    assert counts['cuda'] == 0 < counts['tpu'] < counts['cpu']
    assert hardware.flops(traced) == 2 * 16**3 * counts['cpu']


def test_bytes_of_what_is_read_and_written():
    moved = lambda f, *x: hardware.bytes_moved(jax.make_jaxpr(f)(*x))
    assert moved(lambda x, w: jnp.sin(x @ w), X, W) == 4 * (3 * 8 * 16 + 16 * 32 + 3 * 8 * 32)
    half = [x.astype(jnp.bfloat16) for x in (X, W)]
    assert moved(lambda x, w: x @ w, *half) == 2 * (3 * 8 * 16 + 16 * 32 + 3 * 8 * 32)
    looped = lambda x: jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=5)[0]
    assert moved(looped, jnp.ones((4, 4))) == 5 * 4 * 3 * 16


@pytest.mark.parametrize('stride', [1, 2])
def test_xla_counts_the_same_of_convolutions_and_their_gradients(stride):
    def loss(x, kernel):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), 'SAME', dimension_numbers=numbers
        )
        return (y * y).sum()  # forward, too

    f, arguments = (
        jax.grad(loss, argnums=(0, 1)),
        (jnp.ones((2, 6, 10, 8)), jnp.ones((3, 3, 8, 16))),
    )
    theirs = jax.jit(f).lower(*arguments).cost_analysis()['flops']
    assert counted(jax.jit(f), *arguments) == pytest.approx(theirs, rel=2e-2)


def test_xla_counts_the_same_of_a_program_without_loops():
    f = lambda x, w: jnp.sin(x @ w) @ w.T
    mine = counted(f, jnp.ones((64, 128)), jnp.ones((128, 256)))
    theirs = jax.jit(f).lower(jnp.ones((64, 128)), jnp.ones((128, 256))).cost_analysis()['flops']
    assert theirs == pytest.approx(mine, rel=1e-2)


def test_a_kernel_of_pallas_counts_as_often_as_its_grid_has_places():
    heads, tokens, d = 2, 256, 64
    qkv = 3 * [jax.ShapeDtypeStruct((3, tokens, heads, d), jnp.bfloat16)]
    mixed = lambda q, k, v: attention._splash(q, [k], [v], None)
    traced = jax.make_jaxpr(mixed)(*qkv)
    assert hardware.flops(traced) == 4 * 3 * heads * tokens**2 * d
    assert hardware.flops(traced, kernels=False) == 0
    assert hardware.bytes_moved(traced) >= 4 * 2 * 3 * tokens * heads * d


@pytest.mark.parametrize(
    ('kind', 'peak'),
    [
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H200', 989),
        ('NVIDIA H100 PCIe', 756),
        ('TPU v5 lite', 197),
        ('TPU v5p', 459),
        ('TPU v6 lite', 918),
        ('cpu', None),
    ],
)
def test_peaks(kind, peak):
    assert hardware.peak_tflops(kind) == peak


def test_the_meter_reads_rates_and_waiting(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 4.0])  # restart, waiting from and to, read
    monkeypatch.setattr(hardware.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(hardware, 'peak_tflops', lambda kind: 10.0)
    meter = hardware.Meter(8, 2e12)
    with meter.waiting():
        pass
    values = meter.read(6)
    assert values['steps_per_second'] == 1.5 and values['clips_per_second'] == 12
    assert values['waiting_for_data'] == 0.25
    assert values['tflops'] == 3 and values['mfu'] == pytest.approx(0.3 / jax.device_count())
    assert 'MFU 30.0%' in hardware.describe(values) and '25% waiting' in hardware.describe(values)
