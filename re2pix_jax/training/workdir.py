"""The folder of a run: one for all its processes, on a disk that they share or in a bucket."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from re2pix_jax import files, remote
from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.training import boards, checkpoint, writer

PATIENCE = 5.0  # seconds in which a file of one host shows on the others [O]


class Workdir:
    """A workdir, from the beginning to the end of a run.

    Attributes:
      place: what was given.
      here: where logs are written: `place`, or a folder of this machine whose files go to the
        bucket with `upload`. Checkpoints do not pass through it.

    Raises:
      UserError: on entering: it cannot be written, or the processes do not share it.
    """

    def __init__(self, place: str):
        self.place, self.here, self._sent = place, place, {}

    def __enter__(self):
        checkpoint.check_place(self.place)
        _check_shared(self.place)
        if remote.is_remote(self.place):
            self._above = tempfile.mkdtemp(prefix='re2pix-workdir-')
            # Of the same name, by which boards call a run.
            self.here = os.path.join(self._above, os.path.basename(remote.address(self.place)))
            os.mkdir(self.here)
            for name in () if jax.process_index() else (*writer.LOGS, boards.RUNS):
                there = remote.local(remote.join(self.place, name))
                if there.is_file():
                    shutil.copyfile(there, os.path.join(self.here, name))
        return self

    def __exit__(self, kind, *_):
        if self.here == self.place:
            return
        if not kind:
            self.upload()
        elif not issubclass(kind, Interrupted):  # as by a bucket that is away
            with contextlib.suppress(UserError):  # what is under way is the error to report
                self._upload()
        shutil.rmtree(self._above, ignore_errors=True)

    def upload(self) -> None:
        """Brings the files that have changed since the last call to the bucket, if it is one, and
        waits for one that is away.
        """
        if self.here != self.place:
            remote.patiently(self.place, self._upload)

    def _upload(self):
        for file in sorted(path for path in pathlib.Path(self.here).rglob('*') if path.is_file()):
            about = file.stat().st_size, file.stat().st_mtime_ns
            if self._sent.get(file) != about:
                remote.upload(file, remote.join(self.place, *file.relative_to(self.here).parts))
                self._sent[file] = about


def _check_shared(place: str) -> None:
    """Writes a token from process 0 and lets all read it.

    Raises:
      UserError: on every process, if one of them could not.
    """
    token, refused = os.urandom(8), None
    if jax.process_count() > 1:
        token = bytes(multihost_utils.broadcast_one_to_all(np.frombuffer(token, np.uint8)))
    file = remote.join(place, f'.shared-{token.hex()}')
    if jax.process_index() == 0:
        try:
            files.write_bytes(file, token)
        except UserError as error:
            refused = error
    if jax.process_count() == 1:
        seen = np.asarray([refused is None])
    else:
        written = multihost_utils.broadcast_one_to_all(np.bool_(refused is None))
        seen = multihost_utils.process_allgather(np.bool_(written and _sees(file, token)))
    if jax.process_index() == 0 and refused is None:
        remote.remove(file)
    if refused is not None:
        raise refused
    if not seen.any():
        raise UserError(f'--workdir={place}: process 0 cannot write there')
    if not seen.all():
        without = ', '.join(map(str, np.flatnonzero(~seen)))
        raise UserError(
            f'--workdir={place}: process 0 writes there and process {without} does not see it; '
            'expected one folder for all: give one on a disk that the hosts share, or on gs://'
        )


def _sees(file, token) -> bool:
    """Whether the token is there, or comes within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = None
        with contextlib.suppress(OSError, UserError):  # whatever keeps it from seeing it
            found = _read(file)
        if found == token or time.monotonic() > deadline:
            return found == token
        time.sleep(1)


def _read(file) -> bytes | None:
    return remote.read(file) if remote.is_remote(file) else pathlib.Path(file).read_bytes()
