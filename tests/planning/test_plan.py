"""What follows from a plan's figures: what is cut, what fits, the largest batch."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from re2pix_jax.planning import chips, fits, hlo, plan
from re2pix_jax.planning.chips import GIB


def _plan(topology='v5e:4x4', batch=16, peak=8.0, fsdp=1, **changes):
    """A plan of 1 GiB of state and so much at the most."""
    topology = chips.parse(topology)
    mesh = {'data': topology.count // fsdp, 'fsdp': fsdp, 'tensor': 1}
    whole = topology.count * topology.chip.flops
    made = plan.Plan(
        *('some', 'step', topology, mesh, batch, 100, False),
        *(whole, whole, 1.01 * whole, int(GIB), 0, int(peak * GIB), 0.0, [], frozenset()),
    )
    return dataclasses.replace(made, **changes)


def test_what_saves_more_is_tried_first_where_a_plan_does_not_fit():
    config, asked = ConfigDict({'mesh': {'fsdp': 1}, 'model': {'remat': False}}), []

    def make(state, *peaks):
        peaks = list(peaks)

        def one(config):
            asked.append((config.mesh.fsdp, config.model.get('remat')))
            cut = 16 if config.mesh.fsdp == 16 else 1
            return _plan(peak=peaks.pop(0), fsdp=cut, state=int(state * GIB))

        return one

    assert plan.fitting(make(1, 8.0), config).layout == 'on every device'
    assert plan.fitting(make(15, 20.0, 8.0), config).layout == 'fsdp 16'
    assert plan.fitting(make(1, 20.0, 8.0), config).layout == 'on every device'
    assert plan.fitting(make(1, 20.0, 16.0, 8.0), config).fits
    assert asked == [
        *[(1, False)],
        *[(1, False), (16, False)],
        *[(1, False), (1, True)],
        *[(1, False), (1, True), (16, True)],
    ]
    assert (config.mesh.fsdp, config.model.remat) == (1, False)
    asked.clear()
    without = ConfigDict({'mesh': {'fsdp': 1}, 'model': {}})
    assert not plan.fitting(make(1, 20.0, 16.0), without).fits
    assert asked == [(1, None), (16, None)]
    asked.clear()
    narrow = ConfigDict({'mesh': {'fsdp': 1}, 'model': {'width': 24}})
    plan.fitting(make(1, 20.0, 8.0), narrow)
    assert asked == [(1, None), (8, None)]  # of the 16 devices, what divides the width


def test_what_is_taken_where_none_fits():
    plans = [_plan('h100:8', peak=100.0), _plan('h100:8', peak=90.0, fsdp=8)]
    told, taken = plan.recommend(plans).split('\n')
    assert told.startswith('none is shown to fit h100:8 by an upper bound') and 'batch_size' in told
    assert taken == 'take --config.mesh.fsdp=8 --config.model.remat=False'
    plans = [_plan(peak=100.0), _plan(peak=90.0, fsdp=16)]  # TPUs' is what their compiler says
    assert plan.recommend(plans).startswith('none fits; nearest is --config.mesh.fsdp=16')
    assert '\n' not in plan.recommend(plans)


@pytest.mark.parametrize(
    ('name', 'hosts'),
    [('v5e:2x4', 1), ('v6e:2x4', 1), ('v5e:4x4', 4), ('v5p:2x2x2', 2), ('h100:16', 2)],
)
def test_hosts_of_a_slice(name, hosts):
    assert chips.parse(name).hosts == hosts


def test_links_that_nothing_hides():
    sent = hlo.Transfer('all-reduce', 'data', (8,), 10, chips.CHIPS['v5e'].link, 2)  # two seconds
    one = _plan(transfers=[sent])
    assert one.seconds['compute'] == pytest.approx(1) and one.bound == pytest.approx(2)
    assert one.unhidden == pytest.approx(3) and one.mfu == pytest.approx(0.5)
    printed = plan.compare([one, _plan('v5e:8x8', batch=64)]).splitlines()
    assert printed[-2].split()[-1] == '100.0%' and printed[-1].split()[-1] == '300.0%'


def test_a_program_that_was_not_compiled_is_told_all_the_same():
    one = _plan(peak=20.0, counted=0.0)
    assert not one.fits and one.largest == 0
    printed = plan.describe(one)
    assert 'does NOT fit' in printed and 'for want of memory' in printed and 'MFU' not in printed
    assert plan.compare([one, one]).splitlines()[-1].split()[-1] == '-'


@pytest.mark.parametrize(
    ('peaks', 'largest'),
    [
        ((3.0, 6.0), 1 + 12),  # 1 GiB a clip, 12.75 left
        ((3.0, 15.75), 4),
        ((3.0, 16.0), 3),  # the larger one was tried: it does not fit
        ((16.0, 20.0), 0),
    ],
)
def test_the_largest_batch(peaks, largest):
    least, more = (
        _plan('v5e:1x1', batch, peak) for batch, peak in zip(fits.CLIPS, peaks, strict=True)
    )
    fit = fits.Fit('train', least, more)
    assert fit.largest == largest
    printed = fits.describe([fit, fit._replace(purpose='predict')])
    assert printed.count('some') == 2 and f' {largest} ' in printed
    if more.fits:
        assert fit.seconds == pytest.approx(1 / 4)
