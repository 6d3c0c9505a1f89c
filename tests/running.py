"""Many command lines of one module in one process: importing and compiling take most of the time of
each.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import subprocess
import sys

from tests.conftest import ROOT


def outcomes(
    module: str, commands: dict, positional=(), file_limit: dict | None = None, **variables
) -> dict:
    """{name: [exit status, stdout, stderr]} of `python -m re2pix_jax.MODULE ARGUMENTS...`, run in
    turn by one process.

    Args:
        module: the module's name.
        commands: {name: list of arguments}.
        positional: names of the positional arguments, or None, as the module gives them to cli.run.
        file_limit: {name: bytes}: the size at which every file that this command writes is cut, as
            on a full disk.
        **variables: environment variables of the process.
    """
    asked = {
        'module': module,
        'commands': commands,
        'positional': positional,
        'file_limit': file_limit or {},
    }
    done = subprocess.run(
        [sys.executable, '-m', 'tests.running'],
        input=json.dumps(asked),
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _run(module, commands, positional, file_limit):
    from absl.testing import flagsaver
    from array_record.python import array_record_data_source  # noqa: F401 (has flags, which must be there before they are saved)

    from re2pix_jax.commands import cli

    main, found = importlib.import_module(f're2pix_jax.commands.{module}').main, {}
    for name, arguments in commands.items():
        out, err = io.StringIO(), io.StringIO()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit.get(name, limits[0]), limits[1]))
        sys.argv = [module, *arguments]
        with (
            flagsaver.flagsaver(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                cli.run(main, arguments=positional)
            except SystemExit as end:
                status = end.code or 0
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        found[name] = [status, out.getvalue(), err.getvalue()]
    return found


if __name__ == '__main__':
    json.dump(_run(**json.load(sys.stdin)), sys.stdout)
