"""Key tables: which published tensor becomes which of our parameters.

A table is a list of rules (their key, our path, layout), where {} stands for a number. Where their
key has one and our path has none, our parameter is a stack, and the number is a row of it. Tables
are read strictly: a tensor that no rule knows, a rule without tensor and a shape that does not fit
are all reported, together.
"""

import contextlib
import contextvars
import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError

_NOTES = contextvars.ContextVar('notes', default=None)


@contextlib.contextmanager
def notes():
    """Gives a list that fills, while the context lasts, with what is left out of files on purpose:
    a line for each reason.
    """
    written: list[str] = []
    token = _NOTES.set(written)
    try:
        yield written
    finally:
        _NOTES.reset(token)


def left_out(names, pattern: str, reason: str) -> None:
    """Notes that the tensors of these names are not used; `pattern` is what they have in common."""
    if names and _NOTES.get() is not None:
        _NOTES.get().append(
            f'{len(names)} of {pattern} ({reason})' if len(names) > 1 else f'{names[0]} ({reason})'
        )


def keep(array):
    return array


def dense(array):
    """torch Linear [out, in] -> kernel [in, out]."""
    return array.T


def conv(array):
    """torch Conv2d [out, in, h, w] -> kernel [h, w, in, out]."""
    return array.transpose(2, 3, 1, 0)


def conv3d(array):
    """torch Conv3d [out, in, t, h, w] -> kernel [t, h, w, in, out]."""
    return array.transpose(2, 3, 4, 1, 0)


def patches(array):
    """torch Conv2d [out, in, h, w] whose stride is its size -> Dense kernel [h * w * in, out]."""
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def transposed_conv(array):
    """torch ConvTranspose2d [in, out, h, w] whose stride is its size -> [in, h, w, out]."""
    return array.transpose(0, 2, 3, 1)


def flat(array):
    """Drops axes of length 1 in front: (1, 1, width) -> (width,)."""
    return array.reshape(array.shape[-1])


@dataclasses.dataclass(frozen=True)
class Table:
    """Rules of one model.

    Attributes:
        model: its name, for messages.
        rules: (their key, our path, layout function).
        ignored: (pattern of their keys, as of file names; why) of what is left out on purpose.
    """

    model: str
    rules: tuple[tuple[str, str, Callable], ...]
    ignored: tuple[tuple[str, str], ...] = ()

    def convert(
        self, tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], where
    ) -> dict:
        """Published tensors to the tree of float32 parameters that the network wants, one tensor in
        memory beside it.

        Raises:
            UserError: one, with every tensor that is left over, missing, given twice, or of another
                shape.
        """
        found, sources, problems = {}, {}, []
        unused: dict[str, list[str]] = {pattern: [] for pattern, _ in self.ignored}
        for key, array in tensors.items():
            path, row, layout = self._place(key)
            shape = expected.get(path)
            if shape is not None and row is not None:
                shape = shape[1:] if row < shape[0] else None
            if shape is None:
                pattern = next(
                    (pattern for pattern in unused if fnmatch.fnmatchcase(key, pattern)), None
                )
                if pattern is None:
                    problems.append(f'left over {key} {list(array.shape)}')
                else:
                    unused[pattern].append(key)
                continue
            place = path if row is None else f'{path}[{row}]'
            if place in sources:
                problems.append(f'{sources[place]} and {key} both give {place}')
                continue
            sources[place] = key
            array = np.asarray(array)
            try:
                value = np.ascontiguousarray(layout(array), np.float32)
            except (ValueError, IndexError):  # a layout of another number of axes
                value = array
            if value.shape != tuple(shape):
                problems.append(
                    f'{key} has shape {list(array.shape)}, which does not give {place} '
                    f'{list(shape)}'
                )
            elif row is None:
                found[path] = jnp.asarray(value)
            else:
                stack = found[path] if path in found else jnp.zeros(expected[path])
                found[path] = _put(stack, value, row)
        problems += [
            f'missing {key} for {place} {list(shape)}'
            for key, place, shape in self.sources(expected)
            if place not in sources
        ]
        if problems:
            raise UserError(
                f'{where}: {len(problems)} tensors do not match {self.model}: {"; ".join(problems)}'
            )
        for pattern, reason in self.ignored:
            left_out(unused[pattern], pattern, reason)
        return flax.traverse_util.unflatten_dict(found, sep='/')

    def _place(self, key: str) -> tuple:
        """(our path or None, row of a stack or None, layout) of a published key."""
        for theirs, ours, layout in self.rules:
            if match := _numbered(theirs).fullmatch(key):
                stacked = _is_stacked(theirs, ours)
                row = int(match.group(1)) if stacked else None
                return ours.format(*match.groups()), row, layout
        return None, None, None

    def sources(self, expected: dict[str, tuple[int, ...]]) -> list:
        """(published key, our parameter or [row] of one, its shape) of all that is needed."""
        found = []
        for path, shape in sorted(expected.items()):
            matches = (
                (theirs, ours, match)
                for theirs, ours, _ in self.rules
                if (match := _numbered(ours).fullmatch(path))
            )
            theirs, ours, match = next(matches, ('anything', path, None))
            if match and _is_stacked(theirs, ours):
                found += [(theirs.format(i), f'{path}[{i}]', shape[1:]) for i in range(shape[0])]
            else:
                found.append((theirs.format(*match.groups()) if match else theirs, path, shape))
        return found


def _numbered(pattern: str) -> re.Pattern:
    return re.compile(re.escape(pattern).replace(r'\{\}', r'(\d+)'))


def _is_stacked(theirs: str, ours: str) -> bool:
    return '{}' in theirs and '{}' not in ours


@functools.partial(jax.jit, donate_argnums=0)
def _put(stack, value, row):
    """Fills a row in place: there is never a second copy of the stack."""
    return stack.at[row].set(value)


def norm(theirs: str, ours: str) -> list:
    return [(f'{theirs}.weight', f'{ours}/scale', keep), (f'{theirs}.bias', f'{ours}/bias', keep)]


def layer(theirs: str, ours: str, layout: Callable = dense) -> list:
    return [
        (f'{theirs}.weight', f'{ours}/kernel', layout),
        (f'{theirs}.bias', f'{ours}/bias', keep),
    ]


def batch_norm(theirs: str, ours: str) -> list:
    return [
        *norm(theirs, f'params/{ours}'),
        (f'{theirs}.running_mean', f'batch_stats/{ours}/mean', keep),
        (f'{theirs}.running_var', f'batch_stats/{ours}/var', keep),
    ]


def count(tensors: dict, pattern: str) -> int:
    """How many numbers the keys show in the place of {}: the depth of a stack of layers."""
    matcher = re.compile(_numbered(pattern).pattern + '.*')
    return len({match.group(1) for key in tensors if (match := matcher.match(key))})


def need(tensors: dict, key: str, axes: int, where) -> np.ndarray:
    """The tensor that a size is read from."""
    if key not in tensors or tensors[key].ndim != axes or 0 in tensors[key].shape:
        raise UserError(
            f'{where}: has no tensor {key} with {axes} axes: is this the right kind of file?'
        )
    return tensors[key]


def rename(tensors: dict, name_of: Callable[[str], str], where) -> dict:
    """The tensors under other names; two that come to have the same one are refused."""
    renamed, sources = {}, {}
    for key, array in tensors.items():
        name = name_of(key)
        if name in renamed:
            raise UserError(
                f'{where}: {sources[name]} and {key} are both {name}: expected one of them; remove '
                'the other'
            )
        renamed[name], sources[name] = array, key
    return renamed
