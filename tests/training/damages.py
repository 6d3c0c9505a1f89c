"""What can happen to the newest checkpoint of a run: {name: function of its folder}."""

import os
import shutil


def _file(folder):
    """The largest file of a checkpoint's state, which holds arrays."""
    return max(
        (path for path in (folder / 'state').rglob('*') if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'a bit flipped': lambda folder: _flip(_file(folder)),
    'file cut short': lambda folder: os.truncate(_file(folder), _file(folder).stat().st_size // 2),
    'file empty': lambda folder: os.truncate(_file(folder), 0),
    'file gone': lambda folder: os.remove(_file(folder)),
    'state gone': lambda folder: shutil.rmtree(folder / 'state'),
    'meta garbled': lambda folder: (folder / 'meta' / 'metadata').write_text('{"format": 3'),
}
