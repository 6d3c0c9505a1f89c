"""What is read from JSON: one declaration a format, held against it by one function that names the
place which does not fit.

A declaration is a type: int, float (which an integer fits too), bool, str, None, X | Y, Literal,
list[X], tuple[X, Y], tuple[X, ...], dict[str, X], a TypedDict (what it does not declare passes as
it is), Any, and Annotated[int or float, Within(...)] or Annotated[str, Plain()].
"""

import dataclasses
import functools
import json
import math
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from re2pix_jax.errors import UserError

DEEPEST = 40  # levels of lists and objects
LONGEST = 80  # characters of a value in a message
NUMBERS = ('no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight')


@dataclasses.dataclass(frozen=True)
class Within:
    """The numbers from `low` to `high`, `low` itself only where `closed`; `word` is what to call
    them.
    """

    low: float
    high: float = 2**53
    word: str = ''
    closed: bool = True

    def __contains__(self, number) -> bool:
        return self.low <= number <= self.high and (self.closed or number != self.low)


@dataclasses.dataclass(frozen=True)
class Plain:
    """Text that can stand in a line and in a path."""

    longest: int = 1000

    def __contains__(self, text: str) -> bool:
        return text.isprintable() and len(text) <= self.longest


ANY_INTEGER = Within(-(2**63), 2**63 - 1)
Count = Annotated[int, Within(0, word='non-negative')]
Positive = Annotated[int, Within(1, word='positive')]
PositiveNumber = Annotated[float, Within(0, word='positive', closed=False)]
Name = Annotated[str, Plain()]
Size = tuple[Positive, Positive]


def read_json(file, declared=Any, again: str = 'fetch it again') -> Any:
    """What a file of JSON holds.

    Args:
        file: its path.
        declared: what it has to hold.
        again: what to do about a file that holds something else.

    Raises:
        UserError: the file cannot be read, is no JSON (Infinity and NaN are none), is nested too
            deep, or holds something else.
    """
    try:
        found = json.loads(pathlib.Path(file).read_bytes().decode(), parse_constant=_no_number)
        _check_plain(found)
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror or error}: {again}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{file}: is not readable JSON ({error}): {again}') from error
    return check(found, declared, file, again)


def check(found, declared, where, again: str = '', integers: Within = ANY_INTEGER) -> Any:
    """`found`, as it is, where it fits.

    Args:
        found: what a file holds.
        declared: what it has to be.
        where: the file, for messages.
        again: what to do about it.
        integers: what a mere `int` lies within.

    Raises:
        UserError: it does not fit; the message has the place, what is expected and what is there.
    """
    try:
        _checker(declared, integers)(found)
        return found
    except _Misfit as misfit:
        place = ''.join(
            f'[{step}]' if isinstance(step, int) else f'.{_shown(step, step)}'
            for step in reversed(misfit.path)
        ).removeprefix('.')
        raise UserError(
            f'{where}: {f"{place}: " if place else ""}expected {misfit.expected}, got '
            f'{_shown(misfit.found)}{again and f": {again}"}'
        ) from None


class _Misfit(Exception):
    def __init__(self, expected: str, found):
        super().__init__(expected)
        self.expected, self.found, self.path = expected, found, []


def _shown(value, text: str | None = None) -> str:
    if text is None or not text.isidentifier():
        text = json.dumps(value, default=str)
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 1]}…'


def _no_number(name):
    raise ValueError(f'{name} is no number of JSON')


def _check_plain(found) -> None:
    """Refuses what python's reader lets pass: any depth, numbers too large, half characters, names
    of several lines.
    """
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f'nested more than {DEEPEST} deep')
        inner = []
        for value in level:
            if isinstance(value, dict):
                if any(name and min(name) < ' ' for name in value):
                    raise ValueError('a name with control characters')
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError('a number beyond double precision')
            elif isinstance(value, str) and not value.isascii():
                value.encode()
        level = inner


@functools.lru_cache(1024)
def _checker(declared, integers: Within) -> Callable:
    """The function that raises `_Misfit` for a value that does not fit."""
    inner = functools.partial(_checker, integers=integers)
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if declared is int:
        return inner(Annotated[int, integers])
    if declared is tuple:
        return inner(tuple[Any, ...])
    if origin is Annotated:
        kind, limit = arguments
        basic = _basic(kind)
        return _of(declared, lambda value: basic(value) and value in limit)
    if origin in (types.UnionType, typing.Union):
        return _either(declared, [inner(kind) for kind in arguments])
    if origin is Literal:
        return _of(declared, lambda value: any(value is x or value == x for x in arguments))
    if origin is list:
        return _items(declared, inner(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        return _items(declared, inner(arguments[0]))
    if origin is tuple:
        return _fixed(declared, [inner(kind) for kind in arguments])
    if typing.is_typeddict(declared):
        hints = typing.get_type_hints(declared, include_extras=True)
        return _entries({name: inner(_required(kind)) for name, kind in hints.items()}, declared)
    if origin is dict:
        return _entries(None, declared, inner(arguments[1]))
    return _of(declared, _basic(declared))


def _required(kind):
    """Without `NotRequired`, which the type knows."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.NotRequired else kind


def _basic(kind) -> Callable:
    if kind is int:
        return lambda value: type(value) is int
    if kind is float:
        return lambda value: type(value) in (int, float) and abs(value) < 1e300
    if kind in (bool, str, dict, list):
        return lambda value: type(value) is kind
    if kind in (None, type(None)):
        return lambda value: value is None
    return lambda value: True  # Any, and types that JSON does not have


def _of(declared, fits: Callable) -> Callable:
    def run(value):
        if not fits(value):
            raise _Misfit(_phrase(declared), value)

    return run


def _either(declared, checkers) -> Callable:
    def run(value):
        misfits = []
        for checker in checkers:
            try:
                return checker(value)
            except _Misfit as misfit:
                misfits.append(misfit)
        deepest = max(misfits, key=lambda misfit: len(misfit.path))
        raise deepest if deepest.path else _Misfit(_phrase(declared), value)

    return run


def _items(declared, checker) -> Callable:
    def run(value):
        if not isinstance(value, list | tuple):
            raise _Misfit(_phrase(declared), value)
        for index, item in enumerate(value):
            _step(checker, index, item)

    return run


def _fixed(declared, checkers) -> Callable:
    def run(value):
        try:
            if not isinstance(value, list | tuple) or len(value) != len(checkers):
                raise _Misfit('', value)
            for checker, item in zip(checkers, value):
                checker(item)
        except _Misfit:
            raise _Misfit(_phrase(declared), value) from None

    return run


def _entries(known: dict | None, declared, other: Callable | None = None) -> Callable:
    required = getattr(declared, '__required_keys__', frozenset())

    def run(value):
        if not isinstance(value, dict):
            raise _Misfit(_phrase(declared), value)
        for name in sorted(required - set(value)):
            raise _Misfit(f'an object with "{name}"', value)
        checkers = known if other is None else dict.fromkeys(value, other)
        for name in value:
            if name in checkers:
                _step(checkers[name], name, value[name])

    return run


def _step(checker, step, value):
    try:
        checker(value)
    except _Misfit as misfit:
        misfit.path.append(step)
        raise


def _phrase(declared) -> str:
    """What a declaration asks for, in words."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        return ' or '.join(_phrase(kind) for kind in arguments)
    if origin is Literal:
        return ' or '.join(json.dumps(value) for value in arguments)
    if origin is tuple and arguments[1:] != (...,):
        same = len(set(arguments)) == 1 and len(arguments) < len(NUMBERS)
        nouns = [_phrase(kind) for kind in arguments]
        return f'{NUMBERS[len(nouns)]} {_noun(arguments[0])}s' if same else f'[{", ".join(nouns)}]'
    if origin in (list, tuple):
        return f'a list of {_noun(arguments[0])}s'
    if declared in (bool, None, type(None)):
        return 'true or false' if declared is bool else 'null'
    noun = _noun(declared)
    return f'{"an" if noun[0] in "aeiou" else "a"} {noun}'


def _noun(declared) -> str:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is Annotated and isinstance(arguments[1], Plain):
        return 'line of text'
    if origin is Annotated:
        limit, noun = arguments[1], _noun(arguments[0])
        if limit.word:
            return f'{limit.word} {noun}'
        return noun if limit == ANY_INTEGER else f'{noun} from {limit.low} to {limit.high}'
    if typing.is_typeddict(declared) or origin is dict or declared is dict:
        return 'object'
    if origin in (list, tuple) or declared is list:
        return 'list'
    return {int: 'integer', float: 'number', bool: 'boolean', str: 'text'}.get(declared, 'value')
