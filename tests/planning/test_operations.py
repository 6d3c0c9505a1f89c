"""Operations as they are read from compiled programs: against XLA's own count, and against the
traced program's where loops run, which XLA counts once.
"""

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax.planning import operations
from re2pix_jax.training import hardware


def _both(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    traced = jax.jit(function).trace(*arrays)
    return traced, traced.lower().compile()


def test_products_count_as_often_as_they_run():
    def layers(x, stack):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0].sum()

    traced, made = _both(jax.value_and_grad(layers, argnums=(0, 1)), (32, 64), (7, 64, 64))
    counted = operations.flops(made.as_text())
    assert counted == 7 * 3 * 2 * 32 * 64 * 64
    assert counted == hardware.flops(traced.jaxpr)


def test_batched_products():
    traced, made = _both(lambda q, k: jnp.einsum('bqhd,bkhd->bhqk', q, k), *[(3, 16, 4, 8)] * 2)
    assert operations.flops(made.as_text()) == hardware.flops(traced.jaxpr) == 2 * 3 * 4 * 16**2 * 8


@pytest.mark.parametrize(
    ('stride', 'padding', 'options'),
    [
        (1, 'SAME', {}),
        (2, 'VALID', {}),
        (2, 'SAME', {}),
        (1, 'SAME', {'feature_group_count': 2}),
        (1, [(2, 1), (1, 2)], {'lhs_dilation': (2, 2)}),
        (1, 'SAME', {'rhs_dilation': (2, 2)}),
    ],
)
def test_convolutions_count_what_is_there(stride, padding, options):
    groups = options.get('feature_group_count', 1)

    def convolve(x, kernel):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=numbers, **options
        )

    _, made = _both(convolve, (2, 12, 10, 8), (3, 3, 8 // groups, 6))
    # What XLA counts beside them is a few operations for each number.
    assert operations.flops(made.as_text()) == pytest.approx(
        made.cost_analysis()['flops'], rel=0.02
    )


PRINTED = """HloModule example

%fused (a: bf16[4,16,8], b: bf16[4,8,32]) -> bf16[4,16,32] {
  %a = bf16[4,16,8]{2,1,0} parameter(0)
  %b = bf16[4,8,32]{2,1,0} parameter(1)
  ROOT %c = bf16[4,16,32]{2,1,0} convolution(%a, %b), WINDOW, dim_labels=0bf_0io->0bf
}

ENTRY %main (x: bf16[4,16,8], y: bf16[4,8,32]) -> bf16[4,16,32] {
  %x = bf16[4,16,8]{2,1,0} parameter(0)
  %y = bf16[4,8,32]{2,1,0} parameter(1)
  ROOT %out = bf16[4,16,32]{2,1,0} fusion(%x, %y), kind=kOutput, calls=%fused
}
"""


def test_a_batched_product_that_a_tpu_has_as_a_convolution():
    window = 'window={size=4 stride=3 pad=0_0 lhs_dilate=4}'
    assert operations.flops(PRINTED.replace('WINDOW', window)) == 2 * 4 * 16 * 32 * 8
