"""What networks hold on a mesh, and that they hold nothing without one."""

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.nn import layout
from re2pix_jax.nn.dense import Dense
from tests.running import on_eight_devices

EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from re2pix_jax.nn import layout
from re2pix_jax.nn.dense import Dense
from re2pix_jax.training import mesh
devices = mesh.create(2, 2, 2)
spec = lambda x: x.sharding.spec
with jax.set_mesh(devices):
    assert layout.devices('data', 'fsdp') == 4 and layout.platform() == 'cpu'
    hold = lambda shape, *last: jax.jit(lambda x: layout.hold(x, *last))(np.zeros(shape)).sharding
    cut = lambda shape, *last: hold(shape, *last).shard_shape(shape)
    assert cut((8, 3, 4)) == (2, 3, 4)
    assert cut((8, 3, 4), 'tensor', None) == (2, 3, 4)  # 3 does not divide by 2
    assert cut((8, 3, 4), 'tensor') == (2, 3, 2)
    assert cut((6, 3, 4), 'tensor') == (6, 3, 4)  # nor do 6 clips by 4
    # A kernel kept in rows is read in columns; its gradient comes back to where it is kept.
    kept = jax.device_put(np.ones((8, 6), np.float32), jax.NamedSharding(devices, P('fsdp')))
    x = jax.device_put(np.ones((4, 8), np.float32), mesh.by_clip(devices))
    loss = lambda kernel, x: (x @ layout.whole(kernel, 'tensor')).sum()
    program = jax.jit(jax.grad(loss), out_shardings=kept.sharding).lower(kept, x).compile()
    assert program(kept, x).sharding.shard_shape((8, 6)) == (4, 6)
    np.testing.assert_array_equal(program(kept, x), 4)
    # Heads of q, k and v, each shared by itself: no device has q alone.
    net = Dense(12, parts=3, tensor='out')
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    params = net.init(jax.random.key(0), x)
    parts = jax.jit(net.apply)(params, mesh.global_batch(x, devices))
    assert [part.sharding.shard_shape(part.shape) for part in parts] == 3 * [(1, 5, 2)], parts
whole = x @ params['params']['kernel'] + params['params']['bias']
np.testing.assert_allclose(np.concatenate(parts, -1), whole, atol=1e-6)
print('as it should be')
"""


def test_nothing_is_held_without_a_mesh():
    x = jnp.ones((4, 2))
    assert layout.hold(x) is x and layout.whole(x) is x
    assert layout.devices('data', 'fsdp') == 1 and layout.platform() == jax.default_backend()


def test_parts_of_one_product_are_those_of_the_product():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    params = Dense(6).init(jax.random.key(0), x)
    whole, parts = (Dense(6, parts=parts).apply(params, x) for parts in (1, 3))
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)


def test_on_eight_devices():
    done = on_eight_devices(EIGHT_DEVICES)
    assert done.stdout.endswith('as it should be\n'), done.stderr
