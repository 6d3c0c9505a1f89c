"""The arrows between the rooms: who may import whom, held for every import, those inside functions
and those written as texts too; and the measures of files and names.
"""

import ast
import graphlib
import pathlib
import re

import pytest

from tests.conftest import ROOT

COMMON = {'errors', 'files', 'progress', 'remote', 'schema', 'cityscapes'}
PARTS = {'encoder', 'forecaster', 'generator', 'vae', 'heads'}
NETWORKS = {'nn', 'evaluation.networks', *PARTS}
BELOW_COMMANDS = {*COMMON, *NETWORKS, 'model', 'bundles', 'convert', 'tasks', 'evaluation'}
BELOW_COMMANDS |= {'world', 'data', 'report', 'training'}
ALLOWED = {  # room → the rooms that it may import
    'cityscapes': set(),
    'errors': set(),
    'files': {'errors', 'remote'},
    'progress': set(),
    'remote': {'errors', 'progress'},
    'schema': {'errors'},
    # Networks know no config, no file, no flag, no UserError.
    'nn': set(),
    'encoder': {'nn'},
    'forecaster': {'nn', 'encoder'},
    'generator': {'nn'},
    'vae': {'nn'},
    'heads': {'nn', 'cityscapes'},
    'evaluation.networks': {'nn'},
    'model': {*COMMON, *PARTS, 'nn', 'data', 'report'},
    'bundles': {*COMMON, *NETWORKS, 'model'},
    'world': COMMON,
    'data': {*COMMON, 'world'},
    'report': {*COMMON, 'nn', 'data'},
    'training': {*COMMON, 'data', 'report'},
    'convert': {*COMMON, *NETWORKS, 'model', 'bundles'},
    'tasks': {*COMMON, *NETWORKS, 'model', 'bundles', 'data', 'report', 'training'},
    'evaluation': {*COMMON, *NETWORKS, 'model', 'bundles', 'world', 'data', 'report', 'training'},
    'finetuning': BELOW_COMMANDS - {*NETWORKS, 'cityscapes', 'convert', 'world'},
    'planning': {*COMMON, 'generator', 'model', 'report', 'tasks', 'training'},
    'demo': {*COMMON, 'heads', 'bundles', 'data', 'report', 'evaluation'},
    'benchmarks': BELOW_COMMANDS,
    'commands': {*BELOW_COMMANDS, 'finetuning', 'planning', 'demo', 'benchmarks', ''},
    '': {'bundles'},  # the package itself
    '__main__': {'commands'},
    'configs': {'errors', 'training', *PARTS},
}
NOT_IN_NETWORKS = {'absl', 'clu', 'json', 'ml_collections', 'pathlib', 'safetensors'}


def modules(root: pathlib.Path) -> dict[str, str]:
    """{module: its text} of the package and the configs below `root`."""
    found = {}
    for folder, prefix in ((root / 're2pix_jax', ''), (root / 'configs', 're2pix_jax.')):
        for file in sorted(folder.rglob('*.py')):
            parts = file.relative_to(root).with_suffix('').parts
            found[prefix + '.'.join(parts).removesuffix('.__init__')] = file.read_text()
    return found


def room(module: str) -> str:
    """'re2pix_jax.data.video' → 'data'."""
    inside = module.removeprefix('re2pix_jax').lstrip('.')
    return next(
        (name for name in ('evaluation.networks',) if f'{inside}.'.startswith(f'{name}.')),
        inside.partition('.')[0],
    )


def imports(text: str, known) -> set[str]:
    """What a module imports: ours as modules, others by their first name."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'line {node.lineno}: relative imports hide the room'
            named = {alias: f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in known else node.module for name in named.values()}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r'(re2pix_jax(?:\.\w+)+)(?::\w+)?', node.value)
            found |= {named[1]} if named and named[1] in known else set()
    return {name if name.startswith('re2pix_jax') else name.partition('.')[0] for name in found}


def forbidden(texts: dict[str, str]) -> list[str]:
    """The imports that go against `ALLOWED`, as 'module → imported'."""
    wrong = []
    for module, text in texts.items():
        here = room(module)
        assert here in ALLOWED, f'{module}: the design has no room {here}'
        for name in sorted(imports(text, texts)):
            if name.startswith('re2pix_jax'):
                bad = room(name) not in {here, *ALLOWED[here]}
            else:
                bad = here in NETWORKS and name in NOT_IN_NETWORKS
            if bad:
                wrong.append(f'{module} → {name}')
    return wrong


TEXTS = modules(ROOT)


def test_no_import_goes_against_the_arrows():
    assert not forbidden(TEXTS)


def test_the_arrows_are_no_circle():
    graph = {name: allowed - {name} for name, allowed in ALLOWED.items()}
    assert set().union(*graph.values()) <= graph.keys()
    graphlib.TopologicalSorter(graph).prepare()


def test_no_module_imports_itself_by_way_of_others():
    """A package and what lies in it are one here: its `__init__` gathers what its files define."""
    graph = {
        module: {
            name
            for name in imports(text, TEXTS)
            if name in TEXTS
            and not f'{name}.'.startswith(f'{module}.')
            and not f'{module}.'.startswith(f'{name}.')
        }
        for module, text in TEXTS.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ('module', 'line'),
    [
        ('re2pix_jax.nn.planted', 'from re2pix_jax.encoder import vit'),
        ('re2pix_jax.vae.planted', 'from re2pix_jax.errors import UserError'),
        ('re2pix_jax.generator.planted', 'import ml_collections'),
        ('re2pix_jax.data.planted', 'def f():\n    from re2pix_jax import bundles'),
        ('re2pix_jax.world.planted', 'import re2pix_jax.data.windows'),
        ('re2pix_jax.training.planted', 'from re2pix_jax import tasks'),
        ('re2pix_jax.report.planted', 'from re2pix_jax.evaluation import tables'),
        ('re2pix_jax.report.planted', 'if True:\n    import re2pix_jax.vae as v'),
        ('re2pix_jax.bundles.planted', "PLACE = 're2pix_jax.tasks.head:HeadTask'"),
        ('re2pix_jax.tasks.planted', 'from re2pix_jax.commands import cli'),
        ('re2pix_jax.benchmarks.planted', 'from re2pix_jax.commands import cli'),
        ('re2pix_jax.evaluation.networks.planted', 'from re2pix_jax import bundles'),
        ('re2pix_jax.evaluation.planted', 'from re2pix_jax.tasks import head'),
        ('re2pix_jax.finetuning.planted', 'from re2pix_jax.commands import cli'),
    ],
)
def test_a_planted_import_fails(module, line):
    before = forbidden(TEXTS)
    planted = [wrong for wrong in forbidden({**TEXTS, module: line}) if wrong not in before]
    assert len(planted) == 1 and planted[0].startswith(f'{module} → ')


def test_an_unknown_room_fails():
    with pytest.raises(AssertionError, match='the design has no room things'):
        forbidden({**TEXTS, 're2pix_jax.things': ''})


FILES = [
    file
    for pattern in ('*.py', 'configs/*.py', 'launch/*', 're2pix_jax/**/*.py', 'tests/**/*.py')
    for file in sorted(ROOT.glob(pattern))
]


def test_files_are_short_and_named():
    long = {
        str(file.relative_to(ROOT)): count
        for file in FILES
        if (count := len(file.read_text().splitlines())) > 400
    }
    assert not long
    assert not {'utils', 'util', 'helpers', 'misc', 'common'} & {file.stem for file in FILES}


def test_lines_are_at_most_100_columns():
    assert not [
        f'{file.relative_to(ROOT)}:{number}'
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 100
    ]
