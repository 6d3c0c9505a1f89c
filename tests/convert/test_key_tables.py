"""Key tables: what does not fit is listed, all of it, and what is left out on purpose is noted."""

import numpy as np
import pytest

from re2pix_jax.convert.table import Table, conv, flat, keep, layer, need, notes, patches, rename
from re2pix_jax.errors import UserError

TABLE = Table(
    'a model',
    (
        *layer('first', 'params/first'),
        *layer('old_first', 'params/first'),
        ('token', 'params/token', flat),
        ('patch', 'params/patch', patches),
        ('conv', 'params/conv', conv),
        ('same', 'params/same', keep),
    ),
    ignored=(('head.*', 'not needed'), ('*.steps', 'only counted')),
)
EXPECTED = {
    'params/first/kernel': (2, 3),
    'params/first/bias': (3,),
    'params/token': (3,),
    'params/patch': (4, 2),
    'params/conv': (1, 1, 3, 2),
    'params/same': (2,),
}


def tensors(**changes):
    shapes = {
        'first.weight': (3, 2),
        'first.bias': (3,),
        'token': (1, 1, 3),
        'patch': (2, 1, 2, 2),
        'conv': (2, 3, 1, 1),
        'same': (2,),
    }
    return {name: np.ones(shape, np.float16) for name, shape in (shapes | changes).items()}


def test_a_file_that_fits():
    tree = TABLE.convert(tensors(), EXPECTED, 'here')['params']
    assert tree['first']['kernel'].shape == (2, 3) and tree['first']['kernel'].dtype == np.float32


def test_two_tensors_for_one_parameter():
    with pytest.raises(
        UserError,
        match='2 tensors do not match a model: first.bias and old_first.bias both give '
        'params/first/bias; first.weight and old_first.weight both give params/first/kernel',
    ):
        TABLE.convert(
            tensors(**{'old_first.bias': (3,), 'old_first.weight': (3, 2)}), EXPECTED, 'here'
        )


def test_numbers_where_arrays_belong():
    with pytest.raises(UserError) as caught:
        TABLE.convert({name: np.float32(1) for name in tensors()}, EXPECTED, 'here')
    for name in tensors():
        assert f'{name} has shape [], which does not give ' in str(caught.value)


def test_sizes_are_not_read_from_empty_tensors():
    with pytest.raises(UserError, match='here: has no tensor same with 1 axes'):
        need(tensors(same=(0,)), 'same', 1, 'here')


def test_two_names_that_become_one():
    assert list(rename({'a.b': 1, 'c': 2}, lambda name: name.removeprefix('a.'), 'here')) == [
        'b',
        'c',
    ]
    with pytest.raises(
        UserError, match='here: a.b and b are both b: expected one of them; remove the other'
    ):
        rename({'a.b': 1, 'b': 2}, lambda name: name.removeprefix('a.'), 'here')


def test_what_is_left_out_is_noted():
    left = tensors(**{'head.weight': (1,), 'first.steps': (), 'second.steps': ()})
    with notes() as written:
        TABLE.convert(left, EXPECTED, 'here')
    assert written == ['head.weight (not needed)', '2 of *.steps (only counted)']
    TABLE.convert(left, EXPECTED, 'here')
    assert len(written) == 2
