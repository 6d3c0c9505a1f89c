"""Shares of a batch, filled up to one shape: what fills up counts for nothing."""

import jax
import numpy as np

from re2pix_jax.cityscapes import IGNORE


def filled(local: dict, batch_size: int, first: int, limit: int) -> dict:
    """This process's share of a batch at its full length, the last clip repeated; 'known' says
    which rows count.

    Args:
        local: a loader's batch, whose labels and depth may be absent, and 'known' too.
        batch_size: clips of all processes together.
        first: how many clips came before this batch.
        limit: how many clips count in all.
    """
    share, there = batch_size // jax.process_count(), len(local['record'])
    place = first + jax.process_index() * share + np.arange(share)
    known = (np.arange(share) < there) & (place < limit)
    if not there:  # nothing of the last batch is this process's
        local = {
            name: np.zeros((1, *values.shape[1:]), values.dtype) for name, values in local.items()
        }
    rows = np.minimum(np.arange(share), max(there, 1) - 1)
    batch = {name: values[rows] for name, values in local.items()}
    batch['known'] = known = known & batch.get('known', True)
    for name, unknown in (('labels', IGNORE), ('depth', 0)):
        if name in batch:
            batch[name] = np.where(
                known[:, None, None, None], batch[name], np.asarray(unknown, batch[name].dtype)
            )
    return batch
