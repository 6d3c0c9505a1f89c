"""The commands: flags in, one call, exit status out; a file each. `re2pix` alone lists them.

What they share is in files whose names begin with an underscore, and reached as `commands.cli`.
"""

import contextlib
import sys

from re2pix_jax.commands import _interrupt

# Where the process is a command, and no other program's.
_own = ''.join(sys.argv[:1]).endswith(('/re2pix', 're2pix_jax/__main__.py'))
with _interrupt.at_once() if _own else contextlib.nullcontext():
    from re2pix_jax.commands import _cli as cli  # it imports jax, which takes seconds

__all__ = ['cli']
