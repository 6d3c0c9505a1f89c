"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm

SECONDS = 5.0
"""Between two plain lines."""


def track(items, total, label, unit='clip', size=len):
    """Passes `items` on and says on stderr how far it is, the rate and the time left.

    Args:
        items: iterable; total: how many units they hold together.
        size: units of one item.
    """
    if sys.stderr.isatty():
        with tqdm.tqdm(total=total, desc=label, unit=unit) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    done, began = 0, time.monotonic()
    told = began
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - told >= SECONDS or done >= total:
            told, rate = now, done / max(now - began, 1e-9)
            print(
                f'{label}: {done}/{total} {unit}s, {rate:.1f} {unit}s/s, {max(total - done, 0) / rate:.0f} s left',
                file=sys.stderr,
                flush=True,
            )
