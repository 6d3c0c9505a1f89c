r"""Everything that is to be measured on a GPU, row by row, within a limit of time.

    re2pix benchmark gpu_suite --out=gpu_suite --minutes=8.5

Each row is computed in a process of its own and written to a file below --out; the same command
goes on with the rows that have none. It stops before --minutes are over. Training steps of DiT-B,
L and XL, their predictions of 8 frames, the forecaster's step at 224x448 and 448x896, ours and
torch's; a whole prediction; and candidates of attention, norms and gated units. --rows=REGEX takes
some of them. A row that failed has its error in its file: remove that to have it tried again. On a
CPU all sizes are tiny.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from re2pix_jax import files
from re2pix_jax.errors import UserError
from re2pix_jax.report.table import Number, table

GOALS = {
    'step-b': {'share': 0.33, 'ratio': 1.5},
    'step-l': {'ratio': 1.5},
    'step-xl': {'share': 0.40, 'ratio': 1.5},
    'predict-b': {'ratio': 3.0},
    'predict-l': {'ratio': 3.0},
    'predict-xl': {'ratio': 3.0},
}
"""For one H100: MFU of ours, at least, and torch's time / ours."""
LONG = 90.0  # seconds, without which no further row is begun


def run(out: str | None, minutes: float, rows: str) -> None:
    """Measures what is not there yet, writes `results.json` and `table.txt`, prints the table."""
    if not out:
        raise UserError('benchmark gpu_suite: --out=FOLDER is missing: where results are written')
    try:
        wanted = re.compile(rows)
    except re.error as error:
        raise UserError(f'--rows={rows}: no regular expression ({error})') from error
    ends, folder = time.monotonic() + 60 * minutes, pathlib.Path(out)
    names = [name for name in _names() if wanted.search(name)]
    if not names:
        raise UserError(f'--rows={rows}: no row is called so; there are {", ".join(_names())}')
    (folder / 'rows').mkdir(parents=True, exist_ok=True)
    for name in names:
        left = ends - time.monotonic()
        if file_of(folder, name).exists():
            continue
        if left < min(LONG, 30 * minutes):
            break
        _measure(folder, name, left, 60 * minutes)
    found = {
        name: json.loads(file_of(folder, name).read_text())
        for name in names
        if file_of(folder, name).exists()
    }
    text = describe(found)
    files.write_text(folder / 'results.json', json.dumps(found, indent=1) + '\n')
    files.write_text(folder / 'table.txt', text + '\n')
    print(text)
    missing = len(names) - len(found)
    print(
        f'\n{missing} rows are left: give the command again' if missing else '\nall rows are there'
    )


def file_of(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / 'rows' / f'{name.replace("/", ".")}.json'


def _names():
    from re2pix_jax.benchmarks import gpu_rows  # which starts no device

    return list(gpu_rows.rows())


def _measure(folder, name, left, whole):
    """Runs a row; what fails is written down in its place, but not that its time was short."""
    file, began = file_of(folder, name), time.monotonic()
    changes = {
        'JAX_COMPILATION_CACHE_DIR': str((folder / 'compiled').resolve()),
        'JAX_TRACEBACK_FILTERING': 'off',  # or the last line would not be the error's
        'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.95',  # a row has the device for itself
    }
    command = [sys.executable, '-m', 're2pix_jax.benchmarks.gpu_rows', name, str(file)]
    print(f'{name} ...', flush=True)
    try:
        result = subprocess.run(
            command, env=os.environ | changes, capture_output=True, text=True, timeout=left
        )
        last = (result.stderr.strip().splitlines() or ['no message'])[-1][:300]
        error = None if result.returncode == 0 else f'status {result.returncode}: {last}'
    except subprocess.TimeoutExpired:
        error = f'not done after {left:.0f} s' if left > 0.8 * whole else None
    if error:
        files.write_text(file, json.dumps({'error': error}) + '\n')
    print(f'{name}: {error or f"{time.monotonic() - began:.0f} s"}', flush=True)


def describe(found: dict[str, dict]) -> str:
    """The table of what rows found, each beside its peer and its goals."""
    lines = []
    for name, row in found.items():
        case, _, side = name.rpartition('/')
        if 'error' in row:
            lines.append([case, side, *6 * [None], row['error'][:60]])
            continue
        goal = GOALS.get(case, {}) if side == 'ours' and row['device'] != 'cpu' else {}
        ours = found.get(f'{case}/ours', {}).get('seconds')
        ratio = row['seconds'] / ours if ours and side != 'ours' else None
        if side == 'ours':
            theirs = found.get(f'{case}/torch', {}).get('seconds')
            ratio = theirs / ours if theirs else None
        lines.append(
            [
                case,
                side,
                Number(f'{1e3 * row["seconds"]:.4g}'),
                row['forward_seconds'] * 1e3 if 'forward_seconds' in row else None,
                ratio,
                row.get('share'),
                Number(f'{row["memory"] / 1e9:.2f}'),
                Number(f'{row["first_seconds"]:.1f}'),
                _verdict(goal, ratio, row.get('share')),
            ]
        )
    head = ['row', 'by', 'ms', 'forward,\nms', 'other /\nours', 'of the\npeak', 'memory,\nGB']
    text = table([*head, 'first,\ns', 'goals, on one H100'], lines)
    about = sorted({row['of'] for row in found.values() if row.get('of', '').startswith('MFU')})
    for device in sorted({row['device'] for row in found.values() if 'device' in row}):
        tiny = device == 'cpu'
        about.append(f'on {device}' + (': tiny sizes, whose times say nothing' if tiny else ''))
    return '\n'.join([text, *about])


def _verdict(goal, ratio, share):
    said = []
    for name, value, title in (('share', share, 'MFU'), ('ratio', ratio, 'torch / ours')):
        if name in goal:
            reached = '?' if value is None else 'reached' if value >= goal[name] else 'missed'
            said.append(f'{title} >= {goal[name]:g}: {reached}')
    return ', '.join(said)
