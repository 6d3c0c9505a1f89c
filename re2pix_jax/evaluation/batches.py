"""Batches of clips, filled up to one shape: what fills up counts for nothing."""

from collections.abc import Iterable, Iterator

import numpy as np

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.progress import track


def numbered(
    batches: Iterable[dict], count: int, batch_size: int, label: str
) -> Iterator[tuple[int, dict]]:
    """Yields (clips before it, batch) until `count` clips have come, and says how far it is."""
    pairs = zip(range(0, count, batch_size), batches, strict=False)  # no batch too many is read
    yield from track(pairs, count, label, size=lambda pair: min(batch_size, count - pair[0]))


def of_one_length(
    batches: Iterable[dict], count: int, batch_size: int, label: str
) -> Iterator[tuple[dict, int]]:
    """Yields (batch of `batch_size` clips, how many of them count) where every process reads all
    clips. Those that could be read come first, the last of them is repeated, so that no batch
    compiles anything anew.
    """
    for first, local in numbered(batches, count, batch_size, label):
        known = local.get('known', np.ones(len(local['record']), bool))
        there = np.flatnonzero(known[: count - first])
        if len(there):
            rows = there[np.minimum(np.arange(batch_size), len(there) - 1)]
            yield {name: values[rows] for name, values in local.items()}, len(there)


def filled(local: dict, rows: np.ndarray, first: int, limit: int) -> dict:
    """This process's share of a batch at its full length, the last clip repeated; 'known' says
    which rows count.

    Args:
        local: a loader's batch, whose labels and depth may be absent, and 'known' too.
        rows: the loader's: places of these clips in a full batch.
        first: how many clips came before this batch.
        limit: how many clips count in all.
    """
    share, there = len(rows), len(local['record'])
    known = (np.arange(share) < there) & (first + rows < limit)
    if not there:  # nothing of the last batch is this process's
        local = {
            name: np.zeros((1, *values.shape[1:]), values.dtype) for name, values in local.items()
        }
    taken = np.minimum(np.arange(share), max(there, 1) - 1)
    batch = {name: values[taken] for name, values in local.items()}
    batch['known'] = known = known & batch.get('known', True)
    for name, unknown in (('labels', IGNORE), ('depth', 0)):
        if name in batch:
            batch[name] = np.where(
                known[:, None, None, None], batch[name], np.asarray(unknown, batch[name].dtype)
            )
    return batch
