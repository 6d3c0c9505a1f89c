"""Operations of the matrix products and convolutions of a compiled program, by its text: what the
compiler made of those that the traced program asks for.
"""

import math
import re

from re2pix_jax.planning import hlo
from re2pix_jax.training import hardware

_SHAPE = re.compile(r'\[([\d,]*)\]')


def flops(text: str) -> float:
    """Of one device; a loop's body counts as often as it runs. What a convolution multiplies with
    its padding, or with the zeros of a stride, is not counted.
    """
    _, computations = hlo.parse(text)

    def inside(name):
        lines = computations[name]
        known = {line.name: line for line in lines}
        return sum(of(line, known) for line in lines)

    def of(line, known):
        if line.opcode == 'fusion':
            return inside(line.called('calls'))
        if line.opcode == 'dot':
            return _product(line, known)
        return _convolution(line, known) if line.opcode == 'convolution' else 0.0

    return sum(times * of(line, known) for line, times, known in hlo.run(text))


def _shape(text):
    found = _SHAPE.search(text)
    return [int(n) for n in found[1].split(',') if n] if found else []


def _operand(line, place, known):
    """The shape of an operand: its text may hold it, or else the line that makes it."""
    name = line.operands[place]
    return _shape(known[name].type)


def _product(line, known):
    summed = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', line.rest)[1]
    left = _operand(line, 0, known)
    return 2.0 * math.prod(_shape(line.type)) * math.prod(left[int(k)] for k in summed.split(','))


def _convolution(line, known):
    labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', line.rest)
    window = re.search(r'window=\{([^}]*)\}', line.rest)
    window = dict(part.split('=') for part in window[1].split()) if window else {}
    sizes = [
        dict(zip(names, shape, strict=True))
        for names, shape in zip(
            labels.groups(),
            (_operand(line, 0, known), _operand(line, 1, known), _shape(line.type)),
            strict=True,
        )
    ]
    given, kernel, made = sizes
    total = 2.0 * made['b'] * made['f'] * kernel['i']
    for place, axis in enumerate(sorted(name for name in kernel if name.isdigit())):
        option = {name: value.split('x')[place] for name, value in window.items()}
        before = int(option.get('pad', '0').split('_')[0])
        steps = (int(option.get(name, 1)) for name in ('stride', 'lhs_dilate', 'rhs_dilate'))
        total *= hardware.met(given[axis], kernel[axis], made[axis], before, *steps)
    return total
