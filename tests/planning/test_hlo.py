"""What is read from compiled programs: against XLA's own counts where it counts rightly, and
against programs whose loops and collectives are known.
"""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax.planning import hlo
from tests import running

PRINTED = """HloModule example

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%cond (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %n = s32[]{:T(128)} constant(12)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %r = f32[4,8]{1,0:T(8,128)} all-reduce(%x), GROUPS, to_apply=%add
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %r)
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4,8]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%cond, body=%body
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ('groups', 'axes'),
    [
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 'tensor'),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", 'data'),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", 'tensor'),
        ('replica_groups=[2,4]<=[8]', 'tensor'),
        ('replica_groups=[4,2]<=[2,4]T(1,0)', 'data'),
        ('replica_groups={{0,1,2,3},{4,5,6,7}}', 'tensor'),
        ('replica_groups={{0,4},{1,5},{2,6},{3,7}}', 'data'),
        ('replica_groups=[1,8]<=[8]', 'data+tensor'),
        ('replica_groups={}', 'data+tensor'),
        ('replica_groups=[4,2]<=[8]', '?'),
    ],
)
def test_collectives_in_loops_count_as_often_as_they_run(groups, axes):
    (row,) = hlo.transfers(PRINTED.replace('GROUPS', groups), {'data': 2, 'tensor': 4})
    assert (row.kind, row.axes, row.shape, row.bytes) == ('all-reduce', axes, (4, 8), 128)
    assert row.times == 12
    members = {'tensor': 4, 'data': 2, 'data+tensor': 8, '?': 2}[axes]
    assert row.travels == pytest.approx(2 * 128 * (members - 1) / members)


def test_a_loop_that_is_unrolled_has_fewer_rounds():
    by_two = PRINTED.replace(
        '  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %r)',
        '  %two = s32[]{:T(128)} constant(2)\n'
        '  %next = s32[]{:T(128)} add(%i, %two)\n'
        '  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%next, %r)',
    )
    assert by_two != PRINTED
    (row,) = hlo.transfers(by_two.replace('GROUPS', 'replica_groups={}'), {'data': 2})
    assert row.times == 6


def test_nothing_is_read_from_no_program():
    assert hlo.transfers('', {'data': 2}) == [] and hlo.moved_bytes('') == 0


def test_arrays_beside_the_main_memory_do_not_count():
    assert hlo.array_bytes('bf16[8,128]{1,0:T(8,128)(2,1)}') == 2048
    assert hlo.array_bytes('bf16[8,128]{1,0:T(8,128)(2,1)S(1)}') == 0
    assert hlo.array_bytes('(f32[], s4[3], pred[5]{0})') == 4 + 2 + 5  # rounded up together


def _compiled(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile()


def test_bytes_are_those_that_xla_counts_where_there_is_no_loop():
    compiled = _compiled(
        lambda x, y: (jax.nn.softmax(x @ y), (x @ y).sum(0)), (256, 512), (512, 384)
    )
    counted = compiled.cost_analysis()['bytes accessed']
    assert hlo.moved_bytes(compiled.as_text()) == pytest.approx(counted, rel=0.15)


def test_a_loop_reads_its_own_layer_alone_and_counts_every_round():
    def layers(x, stack):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    few, many = (_compiled(layers, (64, 64), (depth, 64, 64)).as_text() for depth in (5, 20))
    per_round = (hlo.moved_bytes(many) - hlo.moved_bytes(few)) / 15
    layer = 4 * 64 * 64  # read, sliced out, multiplied: a few times a layer, never the stack
    assert 3 * layer <= per_round <= 9 * layer


TRIED = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from re2pix_jax.planning import hlo
from jax.sharding import AxisType
mesh = jax.make_mesh((2, 4), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
spec = lambda *names: NamedSharding(mesh, P(*names))
x = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=spec('data', 'tensor'))
w = jax.ShapeDtypeStruct((128, 32), jnp.float32, sharding=spec('tensor', None))
program = jax.jit(lambda x, w: (x @ w).sum(0), out_shardings=spec())
for row in hlo.transfers(program.lower(x, w).compile().as_text(), dict(mesh.shape)):
    print(row.kind, row.axes, row.times)
"""


def test_axes_of_a_real_program():
    ran = subprocess.run(
        [sys.executable, '-c', TRIED],
        env=running.environment(8),
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r'all-reduce (tensor|data\+tensor) 1', ran.stdout), ran.stdout
