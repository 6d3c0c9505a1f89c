"""One run in a workdir at a time."""

import contextlib
import fcntl
import os
import socket

from re2pix_jax.errors import UserError


@contextlib.contextmanager
def held(workdir: str | os.PathLike, flag: str = '--workdir'):
    """Holds the lock of a folder, which `flag` says; the system lets go of it when the process
    ends, however it ends.

    Raises:
      UserError: another process holds it.
    """
    if not os.path.isdir(workdir):
        yield  # a bucket, which knows no locks
        return
    path = os.path.join(workdir, 'lock')
    with open(path, 'a+', encoding='utf-8') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, (BlockingIOError, PermissionError)):
                yield  # a file system without locks
                return
            file.seek(0)
            raise UserError(
                f'{workdir} is being trained in by {file.read().strip() or "another process"}: '
                f'wait for it, end it, or choose another {flag}'
            ) from None
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield
