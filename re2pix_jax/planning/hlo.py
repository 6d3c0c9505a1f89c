"""What a compiled program does, read from its text: what travels between devices, what it reads
from memory and writes there. Loops count as often as they run, which XLA's own counts do not.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

COLLECTIVES = (
    *('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all'),
    *('collective-permute', 'collective-broadcast'),
)
_ARRAY = re.compile(r'\b(pred|[a-z]+\d\w*)\[([\d,]*)\](\{[^}]*\})?')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$')
_LINE = re.compile(r'^(?:ROOT )?%?([\w.\-]+) = (.*)$')
_FREE = {
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional'),
    *('call', 'after-all', 'partition-id', 'opt-barrier', 'iota', 'async-update'),
}
"""Reads and writes nothing by itself."""


class Instruction(NamedTuple):
    """One line: its name, the arrays that it gives, what it does, on what, and how."""

    name: str
    type: str
    opcode: str
    inside: str
    rest: str

    @property
    def bytes(self) -> int:
        return array_bytes(self.type)

    @property
    def operands(self) -> list[str]:
        return re.findall(r'%([\w.\-]+)', self.inside)

    def called(self, role: str) -> str | None:
        """The computation that it names so: 'body', 'calls', 'to_apply'."""
        found = re.search(rf'\b{role}=%?([\w.\-]+)', self.rest)
        return found and found[1]


class Transfer(NamedTuple):
    """A collective as often as a program runs it.

    Attributes:
        kind: of `COLLECTIVES`.
        axes: names of the mesh's axes over which it goes, '?' where they are none of these.
        shape: of the largest array that it gives, without axes of length 1.
        bytes: of the arrays that it gives, of one device.
        travels: bytes that one device sends, by the algorithm of a ring.
        times: how often.
    """

    kind: str
    axes: str
    shape: tuple[int, ...]
    bytes: int
    travels: float
    times: int


def array_bytes(text: str) -> int:
    """Of all arrays in the text of a type, but for those in a memory of their own beside the main
    one, as TPUs have (`S(1)`).
    """
    total = 0.0
    for dtype, shape, layout in _ARRAY.findall(text):
        if re.search(r'S\([1-9]', layout):
            continue
        total += _bits(dtype) / 8 * math.prod(int(n) for n in shape.split(',') if n)
    return math.ceil(total)


def _bits(dtype):
    return 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])


def parse(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """(name of the entry, {computation: its instructions}) of a module's text."""
    entry, computations, inside = '', {}, None
    for line in map(str.strip, text.splitlines()):
        if inside is None:
            if head := _HEAD.match(line):
                inside = computations.setdefault(head[2], [])
                entry = head[2] if head[1] else entry
        elif line == '}':
            inside = None
        elif found := _LINE.match(line):
            inside.append(_instruction(found[1], found[2]))
    return entry, computations


def _instruction(name, text):
    end = _balanced(text, 0) if text.startswith('(') else text.index(' ')
    start = text.index('(', end)
    close = _balanced(text, start)
    opcode = text[end:start].strip()
    return Instruction(name, text[:end], opcode, text[start + 1 : close - 1], text[close:])


def _balanced(text, start):
    """Where the bracket that opens at `start` is closed, and one further."""
    depth = 0
    for place in range(start, len(text)):
        depth += {'(': 1, ')': -1}.get(text[place], 0)
        if not depth:
            return place + 1
    raise ValueError(f'{text[:80]} ...: a bracket that is never closed')


def run(text: str) -> Iterator[tuple[Instruction, int, dict[str, Instruction]]]:
    """Every instruction that runs outside a fusion, how often, and its neighbours by name; none of
    an empty text.
    """
    entry, computations = parse(text)

    def walk(name, times):
        known = {line.name: line for line in computations[name]}
        for line in known.values():
            yield line, times, known
            if line.opcode == 'while':
                condition, body = line.called('condition'), line.called('body')
                rounds = _rounds(line, computations[condition], computations[body])
                yield from walk(body, times * rounds)
            elif line.opcode in ('call', 'async-start'):
                inner = line.called('to_apply') or line.called('calls')
                if inner:
                    yield from walk(inner, times)
            elif line.opcode == 'conditional':
                names = re.search(r'branch_computations=\{([^}]*)\}', line.rest)
                branches = re.findall(r'[\w.\-]+', names[1]) if names else []
                branches = branches or [
                    line.called(f'{which}_computation') for which in ('true', 'false')
                ]
                yield from walk(branches[-1], times)

    return walk(entry, 1) if entry else iter(())


def _rounds(line, condition, body):
    """Of a loop: as the compiler says, or else the number that its counter is held against, over
    what this goes up by; where neither is there, one.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', line.rest):
        return int(known[1])
    numbers = _numbers(condition)
    return math.ceil(max(numbers.values(), default=1) / _pace(condition, body))


def _numbers(lines):
    """{name: its value} of whole constants."""
    constants = [one for one in lines if one.opcode == 'constant' and one.inside.isdecimal()]
    return {one.name: int(one.inside) for one in constants}


def _pace(condition, body):
    """By how much a counter goes up in a round: XLA unrolls the loops by which it hides what
    travels behind products.
    """
    place = next((one.rest for one in condition if one.opcode == 'get-tuple-element'), '')
    known, numbers = {one.name: one for one in body}, _numbers(body)
    found, given = re.search(r'index=(\d+)', place), body[-1]
    if not found or given.opcode != 'tuple':
        return 1
    counter = known[given.operands[int(found[1])]]
    steps = [numbers[name] for name in counter.operands if name in numbers]
    return steps[0] if counter.opcode == 'add' and steps else 1


def transfers(text: str, axes: dict[str, int]) -> list[Transfer]:
    """What travels, largest first.

    Args:
        text: of the compiled module.
        axes: {name: length} of the mesh, in the order of its devices.
    """
    groups_of = _groups(axes)
    found = collections.Counter()
    for line, times, known in run(text):
        kind = line.opcode.removesuffix('-start')
        if kind not in COLLECTIVES:
            continue
        given = line.type
        if line.opcode.endswith('-start') and kind != 'all-reduce':
            given = _last_of_pair(line, known)
        shapes = [tuple(int(n) for n in s.split(',') if n) for _, s, _ in _ARRAY.findall(given)]
        largest = max(shapes, key=math.prod, default=())
        members, names = _over(line, groups_of)
        size = sum(
            _bits(dtype) // 8 * math.prod(int(n) for n in shape.split(',') if n)
            for dtype, shape, _ in _ARRAY.findall(given)
        )
        travels = {
            'all-reduce': 2 * size * (members - 1) / members,
            'reduce-scatter': size * (members - 1),
            'collective-permute': size,
        }.get(kind, size * (members - 1) / members)
        shape = tuple(n for n in largest if n > 1)
        found[kind, names, shape, size, travels] += times
    rows = [Transfer(*key, times) for key, times in found.items()]
    return sorted(rows, key=lambda row: -row.travels * row.times)


def _last_of_pair(line, known):
    """A started collective gives (what it was given, what it gives, ...)."""
    arrays = [match[0] for match in _ARRAY.finditer(line.type)]
    count = max(len(line.operands), 1)
    return ' '.join(arrays[count : 2 * count] or arrays)


def _groups(axes):
    """{set of groups of devices: the axes over which they are}"""
    names, sizes = list(axes), tuple(axes.values())
    places = np.arange(math.prod(sizes)).reshape(sizes)
    found = {}
    for chosen in range(1, 2 ** len(names)):
        over = [k for k in range(len(names)) if chosen >> k & 1 and sizes[k] > 1]
        rest = [k for k in range(len(names)) if k not in over]
        members = math.prod(sizes[k] for k in over)
        groups = places.transpose(*rest, *over).reshape(-1, members)
        key = frozenset(frozenset(group.tolist()) for group in groups)
        found.setdefault(key, '+'.join(names[k] for k in over))
    return found


def _over(line, groups_of):
    """(devices of a group, axes) of a collective."""
    if line.opcode.startswith('collective-permute'):
        pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', line.rest)
        moved = [tuple(map(int, p)) for p in re.findall(r'(\d+),(\d+)', pairs[1] if pairs else '')]
        fitting = [
            (len(next(iter(groups))), names)
            for groups, names in groups_of.items()
            if all(any(a in group and b in group for group in groups) for a, b in moved)
        ]
        return min(fitting, default=(2, '?'))
    everyone = sorted(set().union(*next(iter(groups_of), [[0]])))
    groups = _listed(line.rest) or [everyone]
    key = frozenset(frozenset(group) for group in groups)
    return len(groups[0]), groups_of.get(key, '?')


def _listed(rest) -> list[list[int]]:
    """The groups of devices of a collective, in any of the three ways in which they are written:
    {{0,1},{2,3}}, [2,2]<=[4], mesh['a'=2,'b'=2] {'b'}; [] for all in one.
    """
    if found := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
        sizes, over = [], []
        for name, size in re.findall(r"'(\w+)'=(\d+)", found[1]):
            part = re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", found[2])
            before, length = (int(part[1] or 1), int(part[2] or size)) if part else (int(size), 1)
            sizes += [before, length, int(size) // before // length]
            over += [len(sizes) - 2] if part else []
        rest = [k for k in range(len(sizes)) if k not in over]
        places = np.arange(math.prod(sizes)).reshape(sizes).transpose(*rest, *over)
        return places.reshape(-1, math.prod(sizes[k] for k in over)).tolist()
    if found := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', rest):
        shape, source = ([int(n) for n in found[k].split(',')] for k in (1, 2))
        places = np.arange(math.prod(source)).reshape(source)
        if found[3]:
            places = places.transpose([int(n) for n in found[3].split(',')])
        return places.reshape(shape).tolist()
    found = re.search(r'replica_groups=\{(\{.*?\})\}', rest)
    listed = re.findall(r'\{([\d,]+)\}', found[1] if found else '')
    return [[int(n) for n in group.split(',')] for group in listed]


def moved_bytes(text: str) -> float:
    """Bytes that one device reads from its memory and writes there: what every instruction is given
    and gives, a slice of an array as the slice alone. What stays in caches is counted, too.
    """
    _, computations = parse(text)
    return sum(times * _moved(line, known, computations) for line, times, known in run(text))


def _moved(line, known, computations):
    if line.opcode in _FREE or line.opcode.endswith(('-done', 'async-start')):
        return 0
    if line.opcode == 'fusion':
        return _moved_by_fusion(line, known, computations[line.called('calls')])
    return _reads_and_writes(line, known)


def _reads_and_writes(line, known):
    sizes = [known[name].bytes for name in line.operands if name in known]
    if line.opcode in ('dynamic-slice', 'gather', 'slice'):
        return 2 * line.bytes
    if line.opcode == 'dynamic-update-slice':
        return 2 * sizes[1] if len(sizes) > 1 else line.bytes
    if line.opcode.endswith('-start'):  # gives what it was given, too
        return line.bytes
    return line.bytes + sum(sizes)


def _moved_by_fusion(line, known, inner):
    """Of a parameter that is only cut from, the cuts; of one that is written into, the piece."""
    users = collections.defaultdict(list)
    for one in inner:
        for name in one.operands:
            users[name].append(one)
    by_name = {one.name: one for one in inner}
    places = {int(one.inside): one for one in inner if one.opcode == 'parameter'}
    total, written = 0, line.bytes
    for one in inner:
        if one.opcode == 'dynamic-update-slice':
            piece = by_name[one.operands[1]]
            if one.bytes and one.bytes <= written:
                written += piece.bytes - one.bytes
    for place, name in enumerate(line.operands):
        outer, one = known.get(name), places.get(place)
        if outer is None:
            continue
        uses = users[one.name] if one else []
        if uses and all(use.opcode == 'dynamic-slice' for use in uses):
            total += sum(use.bytes for use in uses)
        elif uses and all(
            use.opcode == 'dynamic-update-slice' and use.operands[0] == one.name for use in uses
        ):
            continue
        else:
            total += outer.bytes
    return total + max(written, 0)
