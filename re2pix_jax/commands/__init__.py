"""The commands: flags in, one call, exit status out; a file each. `re2pix` alone lists them.

What they share is in files whose names begin with an underscore, and reached as `commands.cli`.
"""

from re2pix_jax.commands import _cli as cli

__all__ = ['cli']
