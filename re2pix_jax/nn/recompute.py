"""What the backward pass keeps of the forward pass."""

from jax.ad_checkpoint import checkpoint_name

# Matrix products, and the kernel of fused attention, whose second result is a number for each
# query.
PRODUCTS = ('dot_general', 'dot_product_attention_fwd_wrapper', 'dot_product_attention_fwd')
OPERAND = 'operand'


def operand(x):
    """Marks what a product reads and is in memory for that anyway: `keep_products` keeps it too."""
    return checkpoint_name(x, OPERAND)


def keep_products(primitive, *_, **params):
    """Policy for `jax.checkpoint`: keep what is expensive to compute, and compute elementwise work
    again.
    """
    return primitive.name in PRODUCTS or params.get('name') == OPERAND
