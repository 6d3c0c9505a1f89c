"""The exception that means: the user can put this right."""

import contextlib

AGAIN = 75
"""Exit status (EX_TEMPFAIL) of a command that was killed or lost another process: nothing is wrong,
the same command goes on.
"""


class UserError(ValueError):
    """A mistake the user can correct.

    The message is one line that names the thing, says what was expected and what to do. The
    commands print it as `error: <message>` on stderr and exit with status 2, without a traceback.
    """


class Interrupted(Exception):
    """What ended a command and is no mistake: something was killed, or is away for a while.

    The commands print `error: <message>; the same command goes on` and exit with status `AGAIN`.
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
