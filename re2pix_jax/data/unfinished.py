"""FOLDER.partial, in which a prepared folder is made: by one command, or by several at once that
share a disk or a bucket.

    plan.json                        what is prepared, by what; whoever goes on must have the same
    train-00003.TOKEN.array_record   a file of records
    train-00003.json                 its name and what its clips are: with this note it counts

The note comes last and names its file, so that a command may be killed at any time, and two that
write the same file do no harm. What no note names is removed in the end.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Sequence

from re2pix_jax import files, remote
from re2pix_jax.data.records import MANIFEST
from re2pix_jax.errors import UserError

PLAN = 'plan.json'
SET_BY = {
    'folder_fps': '--folder_fps',
    'frames_cover': '--size',
    'image_format': '--image_format',
    'parts': '--encoder, --principal or --vae',
    'quality': '--quality',
    'size': '--size',
    'source': 'dataset, --source, --frames or --size',
    'versions': 'versions of packages',
}
"""What the user changes of a plan, where it is called otherwise there."""
Job = tuple[str, int]
"""(split, number of one of its files)."""


class Unfinished:
    """The folder beside `out`; for processes to be handed around, hence without open files.

    Args:
        out: the folder that it becomes.

    Raises:
        UserError: `out` exists or cannot be written.
    """

    def __init__(self, out: str | os.PathLike):
        self.remote = remote.is_remote(out)
        self.out = remote.address(out) if self.remote else pathlib.Path(out)
        self.partial = f'{self.out}.partial'
        if self.remote:
            if self.out.count('/') == 2:
                raise UserError(f'{self.out}: is a whole bucket; expected {self.out}/FOLDER')
            remote.check_writable(self.out)
            # What was moved there before the manifest is no folder yet.
            of_ours = re.compile(r'.*\.array_record-.*|dataset_info\.json|features\.json')
            there = [name for name in _names(self.out) if not of_ours.fullmatch(name)]
            last = there == [MANIFEST] and _read(self._at(PLAN)) is not None  # its last lines
            exists = bool(there) and not last
        else:
            exists = self.out.exists()
        if exists:
            raise UserError(f'{self.out}: exists already; remove it or choose another folder')

    def begin(self, plan: dict, shards: int | None) -> int:
        """Makes the folder, or checks that it was begun with the same plan. Returns in how many
        shards it is written.

        Args:
            plan: JSON.
            shards: as many; None: as many as it was begun in, one if it was not.

        Raises:
            UserError: it was begun with another plan, or in another number of shards.
        """
        names = _names(self.partial)
        text = _read(self._at(PLAN))
        if text is None:
            if not self.remote:
                pathlib.Path(self.partial).mkdir(parents=True, exist_ok=True)
            # Files follow a plan: these are of one that is gone. Another may just be coming.
            for name in names - {PLAN}:
                if not name.startswith('plan.'):
                    remote.remove(self._at(name))
            self._put(PLAN, json.dumps({**plan, 'shards': shards or 1}) + '\n')
            text = _read(self._at(PLAN))
        begun = json.loads(text)
        of = begun.pop('shards', 1)
        again = f'to go on, or remove {"it" if self.remote else "that folder"}'
        changed = [name for name in plan.keys() | begun.keys() if plan.get(name) != begun.get(name)]
        if changed:
            options = sorted({SET_BY.get(name, name) for name in changed})
            raise UserError(
                f'{self.partial}: was begun with other {", ".join(options)}; give the same '
                f'command again {again}'
            )
        if shards not in (None, of):
            how, what = f'in {of} shards', f'--shard=I/{of}'
            if of == 1:
                how, what = 'without --shard', 'the same command without it'
            raise UserError(
                f'{self.partial}: was begun {how}, not in {shards} shards; give {what} {again}'
            )
        self._plan = hashlib.sha256(text).hexdigest()
        return of

    def note(self, job: Job) -> dict | None:
        """What was noted of a file; None: it is not there yet.

        Raises:
            UserError: it was written by another plan.
        """
        text = _read(self._at(_note(job)))
        if text is None:
            return None
        note = json.loads(text)
        # Two that began in the same moment, each by its own plan: the second's is in the folder.
        if note['plan'] != self._plan:
            raise UserError(
                f'{self._at(_note(job))}: was written by a command with other settings; remove '
                f'{self.partial} and begin anew'
            )
        return note

    def notes(self, jobs: Sequence[Job]) -> dict[Job, dict]:
        """The notes of those files that are there."""
        names = _names(self.partial)
        found = {job: self.note(job) for job in jobs if _note(job) in names}
        return {job: note for job, note in found.items() if note is not None}

    def check_begun(self) -> None:
        """Looks whether the folder is still there.

        Raises:
            UserError: another command has finished the folder, or begun it anew.
        """
        if hashlib.sha256(_read(self._at(PLAN)) or b'').hexdigest() != self._plan:
            raise UserError(
                f'{self.partial}: another command has finished or removed it meanwhile; give the '
                f'same command again if {self.out} is not there'
            )

    def new_file(self, job: Job) -> str:
        """Where to write the records of a file."""
        return self._at(f'{_stem(job)}.{secrets.token_hex(4)}.array_record')

    def add(self, job: Job, file: str, note: dict) -> dict:
        """Lets a file count. Returns the note as it is kept.

        Raises:
            UserError: as `check_begun`.
        """
        self.check_begun()
        note = {**note, 'file': os.path.basename(file), 'plan': self._plan}
        self._put(_note(job), json.dumps(note) + '\n')
        return note

    def manifest(self) -> dict | None:
        """The manifest, of a folder that was cut off after that was written."""
        text = _read(remote.join(self.out if self.remote else self.partial, MANIFEST))
        return None if text is None else json.loads(text)

    def settle(self, named: dict[str, str], described: pathlib.Path, manifest: str) -> None:
        """Gives the files their names, and the folder its own.

        Args:
            named: file of a note → its name.
            described: folder of the files that go beside them.
            manifest: the text of the last one.
        """
        place = self.out if self.remote else self.partial
        there = _names(self.partial)
        for file, name in named.items():
            if file in there:  # an earlier call may have been cut off after this
                _move(self._at(file), remote.join(place, name))
        beside = {file.name: file.read_bytes() for file in sorted(described.iterdir())}
        for name in _names(self.out) - {*named.values(), *beside}:  # of a bucket alone
            remote.remove(remote.join(self.out, name))
        for name, content in beside.items():
            files.write_bytes(remote.join(place, name), content)
        files.write_text(remote.join(place, MANIFEST), manifest)
        self.tidy()

    def tidy(self) -> None:
        """Removes what only this folder needed, the plan last, and gives it its name."""
        names = _names(self.partial)
        ours = re.compile(r'.*-\d{5}(\.[0-9a-f]{8})?\.(json|array_record)(\.partial)?|plan\..*')
        for name in sorted(name for name in names - {PLAN} if self.remote or ours.fullmatch(name)):
            remote.remove(self._at(name))
        remote.remove(self._at(PLAN))
        if not self.remote:
            with contextlib.suppress(FileNotFoundError):  # another had begun this, too
                os.rename(self.partial, self.out)

    def forget(self) -> None:
        """Removes it."""
        if not self.remote:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        for name in _names(self.partial):
            remote.remove(self._at(name))

    def _at(self, name):
        return remote.join(self.partial, name)

    def _put(self, name, text):
        """Writes a file that others may be writing, too."""
        beside = self._at(name.replace('.json', f'.{secrets.token_hex(4)}.json'))
        files.write_text(beside, text)
        _move(beside, self._at(name))


def _stem(job) -> str:
    return f'{job[0]}-{job[1]:05d}'


def _note(job) -> str:
    return f'{_stem(job)}.json'


def _names(folder) -> set[str]:
    if remote.is_remote(folder):
        return {*remote.names(folder, deep=False)}
    with contextlib.suppress(FileNotFoundError):
        return {*os.listdir(folder)}
    return set()


def _read(file) -> bytes | None:
    if remote.is_remote(file):
        return remote.read(file)
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(file).read_bytes()
    return None


def _move(source, target):
    if remote.is_remote(source):
        remote.move(source, target)
    else:
        os.replace(source, target)
