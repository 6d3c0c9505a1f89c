"""The exception that means: the user can put this right; and how a full disk is recognised."""

import contextlib
import errno
import os
import re


class UserError(ValueError):
    """A mistake the user can correct.

    The message is one line that names the thing, says what was expected and what to do. The
    commands print it as `error: <message>` on stderr and exit with status 2, without a traceback.
    """


@contextlib.contextmanager
def blaming(place: str):
    """Turns what a network says against its fields or inputs into a UserError of one line: for
    where `place`, a part of a config, meets the network.

    Raises:
        UserError: a ValueError or another error of that kind, with its first line; UserErrors pass.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise UserError(f'{place}: {reason}') from error


_DISK_FULL = ('no space left on device', 'disk quota exceeded')


def disk_full(error):
    """The file that could not be written, when `error` or one of its causes says that the disk is
    full; else None.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return os.fspath(error.filename) if error.filename else 'the output'
        if any(words in str(error).lower() for words in _DISK_FULL):
            # The native writers report the path inside their text, if at all.
            path = re.search(r'["\'](/[^"\']+)["\']', str(error))
            return path.group(1) if path else 'the output'
        error = error.__cause__ or error.__context__
    return None
