"""Declarations of what is read from JSON: what fits passes, what does not is told by its place."""

import json
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from re2pix_jax import schema
from re2pix_jax.errors import UserError


class Clip(TypedDict):
    name: schema.Name
    size: schema.Size
    fps: NotRequired[schema.PositiveNumber]
    depth: NotRequired[tuple[Literal['linear', 'inverse'], float] | None]


class Format(TypedDict):
    clips: list[Clip]
    parts: NotRequired[dict[str, str]]


GOOD = {'clips': [{'name': 'a', 'size': [2, 3], 'fps': 17, 'depth': ['linear', 0.5], 'x': [1]}]}


def test_what_fits_passes_as_it_is(tmp_path):
    (tmp_path / 'f.json').write_text(json.dumps(GOOD))
    assert schema.read_json(tmp_path / 'f.json', Format) == GOOD
    assert schema.read_json(tmp_path / 'f.json') == GOOD


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'size': 'x'}, r'clips\[0\].size: expected two positive integers, got "x"'),
        ({'size': [2, 0]}, r'size: expected two positive integers, got \[2, 0\]'),
        ({'size': [2, True]}, 'size: expected two positive integers'),
        ({'fps': 0}, 'fps: expected a positive number, got 0'),
        ({'fps': None}, 'fps: expected a positive number, got null'),
        ({'depth': ['cubic', 1]}, r'depth: expected \["linear" or "inverse", a number\] or null'),
        ({'name': 'a\nb'}, r'name: expected a line of text, got "a\\nb"'),
        ({'name': 7}, 'name: expected a line of text, got 7'),
    ],
)
def test_what_does_not_is_told_by_its_place(changes, said):
    with pytest.raises(UserError, match=said) as caught:
        schema.check({'clips': [GOOD['clips'][0] | changes]}, Format, 'here', 'do it again')
    assert str(caught.value).startswith('here: clips[0].') and '\n' not in str(caught.value)
    assert str(caught.value).endswith(': do it again')


def test_objects_lists_and_limits():
    for found, declared, said in (
        ({}, Format, 'expected an object with "clips", got {}'),
        ({'clips': {}}, Format, 'clips: expected a list of objects, got {}'),
        ({'clips': [], 'parts': {'a b': 3}}, Format, r'parts\."a b": expected a text, got 3'),
        ([1, 'x'], tuple[int, ...], r'\[1\]: expected an integer, got "x"'),
        (1 << 64, int, 'expected an integer, got 18446744073709551616'),
        (1.5, int | None, 'expected an integer or null, got 1.5'),
        ('x' * 500, bool, r'expected true or false, got "x{78}…'),
        (1e301, float, 'expected a number'),
    ):
        with pytest.raises(UserError, match=f'^here: {said}'):
            schema.check(found, declared, 'here')
    assert schema.check(70_000, int, 'here') == 70_000
    with pytest.raises(UserError, match='expected an integer from 0 to 9, got 10'):
        schema.check(10, int, 'here', integers=schema.Within(0, 9))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"a": NaN}', 'NaN is no number of JSON'),
        ('[1e999]', 'a number beyond double precision'),
        ('[' * 41 + ']' * 41, 'nested more than 40 deep'),
        ('[' * 100_000, 'recursion'),
        ('"\\ud800"', 'surrogates not allowed'),
        ('{"a": {"b\\nc": 1}}', 'a name with control characters'),
        ('{', 'Expecting property name'),
    ],
)
def test_what_is_no_json(tmp_path, text, said):
    (tmp_path / 'f.json').write_text(text)
    with pytest.raises(UserError, match=rf'f.json: is not readable JSON \(.*{said}') as caught:
        schema.read_json(tmp_path / 'f.json', Any)
    assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match='gone.json: cannot be read: No such file'):
        schema.read_json(tmp_path / 'gone.json')
