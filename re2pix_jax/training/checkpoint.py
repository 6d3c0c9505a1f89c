"""Checkpoints: all that a run resumes from, bound to the config and the frozen bundles that made
it.

`workdir`/checkpoints/<step>/ holds state (arrays, any mesh), data (the iterator's state after the
batches that were consumed, the same for every process) and meta (format, config, bundles, shape of
a batch). Orbax writes beside and renames, so a run cut off while saving leaves the previous
checkpoint as the latest. In a bucket it writes in place, and last a file that says it is complete.
"""

import hashlib
import json
import os
import shutil
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from re2pix_jax import files, remote
from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.training import checksums
from re2pix_jax.training.defaults import flatten

FOLDER = 'checkpoints'
FORMAT = 3
WRITTEN_BY = {1: '0.0', 2: '0.1.0'}  # of former formats
_UNFINISHED = '.orbax-checkpoint-tmp'
_SLACK = 200_000  # bytes of a checkpoint that are not arrays

# Fields that a resumed run may change: they say how long and how it runs and reports, not what is
# computed. (Another `steps` does change a falling learning rate from there on.)
FREE = (
    'steps',
    'epochs',
    'epoch_clips',
    'log_every',
    'eval_every',
    'checkpoint_every',
    'keep',
    'mesh',
    'sharding',
    'eval_data',
    'evals',
    'log',
    'profile',
    'data.workers',
    'data.unreadable',
    'data.least_share',
    'data.most_enlarged',
)


class Checkpoints:
    """The checkpoints of one folder.

    Args:
      workdir: the folder of the run; made when missing.
      keep: checkpoints kept, the latest.
      folder: name within workdir.
      read_only: for reading a run that another process may be writing.
    """

    def __init__(self, workdir: str, keep: int = 1, folder: str = FOLDER, read_only: bool = False):
        check_place(workdir)
        self._remote = remote.is_remote(workdir)
        workdir = workdir if self._remote else os.path.abspath(workdir)
        self.path = remote.join(workdir, folder)
        self._manager = self._saved = None
        if read_only and not self._exists():
            return
        if not self._remote:
            os.makedirs(self.path, exist_ok=True)
            if not read_only:
                _set_damaged_aside(self.path)
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=None if read_only else ocp.checkpoint_managers.LatestN(keep),
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._complete),
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # What is away has been waited for.
        if kind is None or not issubclass(kind, Interrupted):
            self.close()

    def latest(self) -> int | None:
        """The step of the latest complete checkpoint, or None."""
        return self._manager.latest_step() if self._manager else None

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def meta(self, step: int) -> dict:
        """{'config': nested dict, 'config_sha256', 'bundles', 'batch', 'format'} of a
        checkpoint.
        """
        meta = self._restore(step, meta=ocp.args.JsonRestore()).meta
        if meta.get('format') != FORMAT:
            raise UserError(
                f'{self.path}/{step}: checkpoint format {meta.get("format")!r}, and this version '
                f'of re2pix_jax reads {FORMAT}: train anew in another --workdir, or export it with '
                f'the version that wrote it ({WRITTEN_BY.get(meta.get("format"), "a later one")})'
            )
        return meta

    def digest(self, step: int) -> str:
        """sha256 of the files that hold the state of a checkpoint."""
        folder, found = remote.local(f'{self.path}/{step}/state'), hashlib.sha256()
        for file in sorted(path for path in folder.rglob('*') if path.is_file()):
            found.update(f'{file.relative_to(folder)} {file.stat().st_size}\n'.encode())
            found.update(file.read_bytes())
        return found.hexdigest()

    def restore(self, step: int, abstract_state) -> tuple:
        """Reads a checkpoint.

        Args:
          step: which.
          abstract_state: TrainState of ShapeDtypeStructs with the shardings wanted, on any mesh.

        Returns:
          (TrainState, state of the data iterator).

        Raises:
          UserError: it cannot be read.
        """
        restored = self._restore(
            step, state=ocp.args.StandardRestore(abstract_state), data=ocp.args.JsonRestore()
        )
        return restored.state, restored.data

    def save(self, step, state, data_state, meta, wait=False):
        """Writes a checkpoint in the background; with `wait` it is complete on return.

        Raises:
          UserError: the disk is full. The latest complete checkpoint stays the latest.
          Interrupted: the bucket was away for longer than its clients try.
        """
        if step == self._saved:
            return self.wait() if wait else None
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data_state),
            meta=ocp.args.JsonSave(meta),
        )
        self.check_space(state)
        self._guarded(self._manager.wait_until_finished)
        self._saved = step
        self._guarded(lambda: self._manager.save(step, args=items, force=True))
        return self.wait() if wait else None

    def check_space(self, state):
        """Raises UserError unless the disk has room for this process's share of a checkpoint of
        `state`.

        Asked before anything is written, since running out in the middle leaves every thread of the
        writer complaining. Buckets have no end.
        """
        if self._remote:
            return
        needed = sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(state)
            for shard in leaf.addressable_shards
            if shard.replica_id == 0
        )
        free = shutil.disk_usage(self.path).free
        if free < needed + _SLACK:
            raise UserError(
                f'disk full: {self.path} has {free / 1e6:.1f} MB left, a checkpoint needs '
                f'{(needed + _SLACK) / 1e6:.1f} MB: free space and give the same command again'
            )

    def wait(self):
        """Returns when what was saved is complete."""
        self._guarded(self._manager.wait_until_finished)

    def close(self):
        if self._manager:
            self._guarded(self._manager.close)

    def check(self, step: int) -> None:
        """Raises UserError where files of a checkpoint are not as they were written."""
        if found := checksums.damage(os.path.join(self.path, str(step))):
            raise UserError(
                f'checkpoint {self.path}/{step} is damaged: {found}; take another of '
                f'{", ".join(map(str, self.steps()))}'
            )

    def _complete(self):
        # Orbax calls it in the background, when all processes have written and before it renames.
        folder = os.path.join(self.path, f'{self._saved}{_UNFINISHED}')
        if jax.process_index() == 0 and os.path.isdir(folder):
            checksums.write(folder)

    def _exists(self):
        if self._remote:
            return bool(remote.names(self.path, deep=False))
        return os.path.isdir(self.path)

    def _restore(self, step, **items):
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError, json.JSONDecodeError) as error:
            reason = ' '.join(str(error).split())[:300]
            raise UserError(
                f'checkpoint {self.path}/{step} cannot be read into this run: {reason}; delete '
                'that folder to go on from the one before'
            ) from error

    def _guarded(self, action):
        try:
            with remote.talking(self.path) if self._remote else files.writing(self.path):
                action()
        except UserError as error:
            if self._remote:  # whose clients have tried for a while
                remote.patiently(self.path, lambda: remote.check_writable(self.path))
                raise Interrupted(f'a checkpoint was not written: {error}') from error
            for name in os.listdir(self.path):
                if name.endswith(_UNFINISHED):
                    shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
            raise


def _set_damaged_aside(path):
    """Moves checkpoints whose files are not as they were written out of the way, the latest first,
    and says so, up to one that is well.
    """
    if jax.process_index() == 0 and os.path.isdir(path):
        steps = sorted((int(name) for name in os.listdir(path) if name.isdecimal()), reverse=True)
        for place, step in enumerate(steps):
            folder = os.path.join(path, str(step))
            if (found := checksums.damage(folder)) is None:
                break
            aside = f'{os.path.dirname(path)}/damaged/{step}-{time.strftime("%Y%m%d-%H%M%S")}'
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            os.rename(folder, aside)
            rest = steps[place + 1 :]
            print(
                f'checkpoint {folder} is damaged: {found}; it lies in {aside} now, the run '
                + (f'goes on from step {rest[0]}' if rest else 'begins anew'),
                file=sys.stderr,
            )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices('checkpoints looked through')


def check_place(workdir: str) -> None:
    """Refuses a workdir that checkpoints cannot be written to.

    Raises:
      UserError: it lies on s3://, where Orbax takes a checkpoint for complete before it is, or
        nowhere, or is a file.
    """
    if remote.is_remote(workdir) and remote.address(workdir).startswith('s3:'):
        raise UserError(
            f'--workdir={workdir}: checkpoints are written to a disk or to gs://; give such a '
            'place (bundles, prepared data and reports may lie on s3://)'
        )
    remote.check(workdir, '--workdir')
    if os.path.isfile(workdir):
        raise UserError(
            f'--workdir={workdir}: is a file; expected the folder of a run, or a new one'
        )


def describe(config, bundles: dict, batch: dict) -> dict:
    """The meta of a run's checkpoints: its config, the hashes of its frozen bundles, the shapes of
    a global batch.
    """
    fields = plain(config)
    text = json.dumps(fields, sort_keys=True)
    return {
        'format': FORMAT,
        'config': fields,
        'config_sha256': hashlib.sha256(text.encode()).hexdigest(),
        'bundles': plain(bundles),
        'batch': {name: [list(x.shape), str(np.dtype(x.dtype))] for name, x in batch.items()},
    }


def batch_spec(meta: dict) -> dict:
    """{name: ShapeDtypeStruct} of the global batch that `describe` noted."""
    return {
        name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
        for name, (shape, dtype) in meta['batch'].items()
    }


def check_same_run(meta: dict, config, bundles: dict, workdir: str) -> None:
    """Refuses to go on with a checkpoint of another config or of other frozen bundles, naming what
    differs.
    """
    then, now = flatten(meta['config']), flatten(plain(config))
    # The path of a bundle may change; its hash, checked below, may not.
    free = (*FREE, *(f'frozen.{name}' for name in bundles))
    differing = [
        name
        for name in sorted({*then, *now})
        if not any(name == field or name.startswith(field + '.') for field in free)
        and then.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]
    if 'task' in differing:
        raise UserError(
            f'{workdir} belongs to a run of the {then["task"]} task, and this is {now["task"]}: '
            'give another --workdir'
        )
    if differing:
        listed = ', '.join(
            f'{name} was {_show(then, name)}, is {_show(now, name)}' for name in differing
        )
        raise UserError(
            f'{workdir} belongs to another config: {listed}; use the same config or another '
            '--workdir'
        )
    check_bundles(meta, bundles, workdir)


def check_bundles(meta: dict, bundles: dict, workdir: str) -> None:
    """Refuses frozen bundles whose contents are not those that the checkpoint was trained with."""
    then = meta['bundles']
    changed = [
        f'{name} ({_places(then.get(name), bundles.get(name))})'
        for name in sorted({*then, *bundles})
        if then.get(name, {}).get('identity') != bundles.get(name, {}).get('identity')
    ]
    if changed:
        raise UserError(
            f'{workdir} was trained with other contents of the frozen bundle {", ".join(changed)}: '
            'put the bundle back or start in another --workdir'
        )


def _places(then: dict | None, now: dict | None) -> str:
    was, now = (bundle['path'] if bundle else 'none' for bundle in (then, now))
    return was if was == now else f'was {was}, is {now}'


def load_config(meta: dict) -> ConfigDict:
    """The locked ConfigDict of a checkpoint's meta, tuples restored."""
    return ConfigDict(_tuples(meta['config'])).lock()


def plain(config) -> dict:
    """Nested dicts and lists as JSON gives them back."""
    fields = config.to_dict() if isinstance(config, ConfigDict) else config
    return json.loads(json.dumps(fields))


_ABSENT = object()


def _show(fields, name):
    return json.dumps(fields[name]) if name in fields else 'absent'


def _tuples(value):
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
