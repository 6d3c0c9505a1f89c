"""Many command lines of one command in one process: most of their time goes into importing and
compiling.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys

from tests.conftest import ROOT


def environment(devices: int = 1, **variables: str) -> dict[str, str]:
    """The environment of a process that has so many devices, all on the CPU."""
    flags = os.environ.get('XLA_FLAGS', ''), f'--xla_force_host_platform_device_count={devices}'
    return os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(flags)} | variables


def hear_ctrl_c() -> None:
    """For `preexec_fn`: what a script starts in the background has it ignored, and its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def on_eight_devices(program: str) -> subprocess.CompletedProcess:
    """Runs a Python program in a process of its own that has eight devices."""
    return subprocess.run(
        [sys.executable, '-c', program],
        cwd=ROOT,
        env=environment(8),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def outcomes(
    command: str, commands: dict, file_limit: dict | None = None, **variables
) -> dict[str, tuple[int, str, str]]:
    """{name: [exit status, stdout, stderr]} of `re2pix COMMAND ARGUMENTS...`, run in turn by one
    process.

    Args:
        command: the command's name.
        commands: {name: list of arguments}.
        file_limit: {name: bytes}: the size at which every file that this command writes is cut, as
            on a full disk.
        **variables: environment variables of the process.
    """
    asked = {'command': command, 'commands': commands, 'file_limit': file_limit or {}}
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


def _run(command, commands, file_limit):
    from absl.testing import flagsaver

    # It has flags, which must be there before they are saved.
    from array_record.python import array_record_data_source  # noqa: F401

    from re2pix_jax.commands import cli

    main, found = importlib.import_module(f're2pix_jax.commands.{command}').main, {}
    for name, arguments in commands.items():
        out, err = io.StringIO(), io.StringIO()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit.get(name, limits[0]), limits[1]))
        sys.argv = [f're2pix {command}', *arguments]
        with (
            flagsaver.flagsaver(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                cli.run(main)
            except SystemExit as end:
                status = end.code or 0
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        found[name] = [status, out.getvalue(), err.getvalue()]
    return found


if __name__ == '__main__':
    json.dump(_run(**json.load(sys.stdin)), sys.stdout)
