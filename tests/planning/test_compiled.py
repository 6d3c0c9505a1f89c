"""What was compiled is kept, and memory that does not suffice is an answer."""

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax.planning import chips, compiled


class Lowered:
    """A program that can be compiled once, with the outcome that is given."""

    def __init__(self, outcome, text='program'):
        self.outcome, self.text = [outcome], text

    def as_text(self):
        return self.text

    def compile(self):
        outcome = self.outcome.pop()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(compiled, '_version', lambda package: '1')


def test_a_program_is_compiled_once_for_devices():
    made = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
    lowered, one = Lowered(made), chips.parse('h100')
    first = compiled.compiled(lowered, one)
    assert first.peak >= 2 * 4 * 64 and 'dot' in first.text
    assert compiled.compiled(lowered, one) == first
    assert compiled.compiled(lowered, chips.parse('rtx4090')) == first  # the same stand-in
    for program, topology in ((lowered, 'h100:2'), (lowered, 'v5e:2x2'), (Lowered(0, 'b'), 'h100')):
        program.outcome = []
        with pytest.raises(IndexError):  # another one: it would have to be compiled
            compiled.compiled(program, chips.parse(topology))


@pytest.mark.parametrize(
    ('said', 'gib'),
    [
        (
            'Ran out of memory in memory space hbm. Used 18.5G of 15.75G hbm. Exceeded by 2.75G',
            18.5,
        ),
        ('required for HLO temporaries (448.00G) exceeds available HBM (15.75G).', 448),
        ('Used 512M of 256.5M hbm', 0.5),
    ],
)
def test_a_compiler_that_gives_up_says_how_much_it_wanted(said, gib):
    lowered = Lowered(jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {said}'))
    for _ in range(2):
        found = compiled.compiled(lowered, chips.parse('v5e:2x2'))
        assert found == ('', gib * chips.GIB)


def test_other_errors_stay_what_they_are():
    lowered = Lowered(jax.errors.JaxRuntimeError('INTERNAL: no'))
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
        compiled.compiled(lowered, chips.parse('v5e:2x2'))
