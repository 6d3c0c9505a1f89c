#!/usr/bin/env python3
"""Stands in for gcloud on PATH, with a slice of two workers that are folders and processes here.

GCLOUD_FOLDER gets calls.jsonl and a home for each worker. A queued resource is ACTIVE when it is
asked for the third time; with GCLOUD_STATES it is in these, one after the other, the last one for
ever, of which NONE and OFFLINE are errors. GCLOUD_FAILS names verbs that fail the first time.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

WORKERS = 2
ERRORS = {'NONE': 'NOT_FOUND: Resource was not found', 'OFFLINE': 'There was a problem refreshing'}


def main(arguments):
    folder = pathlib.Path(os.environ['GCLOUD_FOLDER'])
    with open(folder / 'calls.jsonl', 'a', encoding='utf-8') as file:
        file.write(json.dumps(arguments) + '\n')
    flags = {
        found[1]: found[2]
        for argument in arguments
        if (found := re.fullmatch(r'--([a-z-]+)=(.*)', argument, re.S))
    }
    if arguments[0] == 'storage':
        return 0
    group, verb, *rest = [a for a in arguments if not a.startswith('--')][2:]
    homes = [folder / f'{rest[0]}-{worker}' for worker in range(WORKERS)]
    asked = sum(f'"{verb}"' in line for line in open(folder / 'calls.jsonl', encoding='utf-8'))
    if verb in os.environ.get('GCLOUD_FAILS', '').split() and asked == 1:
        return _failed(f'{verb}: quota exceeded')
    if (group, verb) == ('queued-resources', 'describe'):
        states = os.environ.get('GCLOUD_STATES', 'WAITING_FOR_RESOURCES ' * 2 + 'ACTIVE').split()
        state = states[min(asked, len(states)) - 1]
        if state in ERRORS:
            return _failed(ERRORS[state])
        print(state)
    elif verb == 'scp':
        source, place = rest
        node, name = place.split(':')
        for worker in range(WORKERS):
            home = folder / f'{node}-{worker}'
            home.mkdir(exist_ok=True)
            shutil.copy(source, home / name)
    elif verb == 'ssh':
        for worker, home in enumerate(homes):
            if flags['worker'] in ('all', str(worker)):
                status = _on(home, worker, flags)
                if status:
                    return status
    elif verb == 'delete':
        shutil.rmtree(homes[0], ignore_errors=True)
    return 0


def _failed(text):
    print(f'ERROR: (gcloud) {text}', file=sys.stderr)
    return 1


def _on(home, worker, flags):
    """Runs the command as a shell on that worker would."""
    several = {
        'JAX_COORDINATOR_ADDRESS': os.environ['GCLOUD_COORDINATOR'],
        'JAX_NUM_PROCESSES': str(WORKERS),
        'JAX_PROCESS_ID': str(worker),
    }
    done = subprocess.run(
        ['bash', '-c', flags['command']],
        cwd=home,
        env=os.environ | several | {'HOME': str(home)},
        stdout=subprocess.PIPE,
        check=False,
    )
    out = done.stdout.decode()
    if 'output-directory' in flags:
        pathlib.Path(flags['output-directory'], f'{worker}.log').write_text(out)
    else:
        sys.stdout.write(out)
    return done.returncode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
