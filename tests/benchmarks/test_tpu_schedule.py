"""Cycles are counted as a schedule's loops run, and the attention benchmark is of what it says."""

import pytest

from re2pix_jax.benchmarks import attention, tpu_schedule
from re2pix_jax.errors import UserError

# Ten bundles: an inner loop of two in an outer one of three more, one before and four after.
SCHEDULE = """
LB: loop body
     0   :  { %s1 = smov 0 }
   0x1 LB: > { %s2 = smov 0 /* a comment
iteration_bounds: (4, 5) */ }
   0x2 LB: >> { %p3 = scmp.ge.s32.totalorder %s4, 5 /* loop exit test */ }
   0x3   : >> { %6 = sbr.rel (!%p3) target = $region2 }
   0x4   : > { %p5 = scmp.ge.s32.totalorder %s6, 4 /* loop exit test */ }
   0x5   :  { %6 = sbr.rel (!%p5) target = $region1 }
   0x6   :  { %7 = sbr.rel (%p8) target = $region3 }
   0x7   :  { %v1 = vst 0 }
   0x8 CT: { %v1 = vst 0 }
   0x9   :  { %v1 = vst 0 }
"""


def test_a_loops_bundles_count_as_often_as_it_runs():
    assert tpu_schedule.cycles(SCHEDULE) == 1 + 4 * (3 + 5 * 2) + 4


def test_an_estimate_is_in_seconds():
    estimate = tpu_schedule.Estimate(cycles=1_500_000, bytes=819e6, temporaries=0)
    assert estimate.scheduled == pytest.approx(1e-3, rel=0.01)
    assert estimate.moving == pytest.approx(1e-3)


def test_without_the_compiler_the_benchmark_says_what_to_install(monkeypatch):
    def none(**_):
        raise RuntimeError('no plugin\nmore')

    monkeypatch.setattr(tpu_schedule.topologies, 'get_topology_desc', none)
    monkeypatch.setenv('LIBTPU_INIT_ARGS', '')
    with pytest.raises(UserError, match=r'for \(no plugin\); pip install libtpu'):
        attention.run(1)


def test_every_candidate_is_asked_about_forward_and_with_gradients(monkeypatch, capsys):
    import contextlib

    asked = []

    def estimate(function, arguments):
        asked.append([argument.shape for argument in arguments])
        return tpu_schedule.Estimate(cycles=3_000_000, bytes=1e9, temporaries=5_000_000)

    monkeypatch.setattr(
        tpu_schedule, 'compiler', lambda: contextlib.nullcontext(estimate), raising=True
    )
    attention.run(2)
    text = capsys.readouterr().out
    count = sum(len(functions) for functions, _ in attention.cases(2).values())
    assert len(asked) == 2 * count and text.count('with gradients') == count
    assert asked[0] == 3 * [(2, 4, 512, 12, 64)]
    assert '1.996' in text and '1.221' in text
