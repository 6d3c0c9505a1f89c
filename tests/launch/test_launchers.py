"""The launchers: what they would do, and the lines that they refuse with."""

import os
import re
import shlex
import shutil
import string
import subprocess

import pytest
import yaml

from re2pix_jax.planning import chips
from re2pix_jax.training.defaults import flatten
from tests.conftest import ROOT, load_config
from tests.launch.launching import NAMES, launch

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('launch', 'tests/launch')
    for path in (ROOT / folder).iterdir()
    if path.suffix in ('.sh', '.sbatch')
)


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='without shellcheck')
def test_the_scripts_are_clean():
    done = subprocess.run(['shellcheck', '-x', *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('recipe', ['tiny', 'base', 'base-xl', 'base-unet', 'base-baseline-large'])
@pytest.mark.parametrize('platform', ['', 'tpu'])
def test_the_stages_are_lines_that_their_configs_understand(recipe, platform):
    status, shown, said = launch(
        'stages.sh', '--dry-run', 'runs/x', RECIPE=recipe, PLATFORM=platform
    )
    assert (status, said) == (0, '')
    trained, made = [], {'tiny', 'bundles/base/encoder', 'bundles/base/vae'}
    for line in shown.splitlines():
        words = shlex.split(line)
        words = words[words.index('re2pix') + 1 :]
        flags = dict(re.fullmatch(r'--([\w.]+)=?(.*)', word).groups() for word in words[1:])
        if 'config' in flags:
            fields = flatten(load_config(*flags['config'].split(':')))
            given = {name.removeprefix('config.'): flags[name] for name in flags if '.' in name}
            assert given.keys() <= fields.keys(), line
            # What a stage takes frozen is there by then.
            assert {given[name] for name in given if name.startswith('frozen.')} <= made, line
        if words[0] == 'train':
            trained.append(flags['config'])
        made |= {flags['out']} if 'out' in flags else set()
    last = 'generator:' + recipe
    assert trained[-1] == last and 'runs/x/parts/generator' in made
    assert 'COMPILATION_CACHE' not in shown  # where it always is
    unrolled = platform == 'tpu' and recipe.startswith('base') and recipe != 'base-unet'
    assert ('--config.model.unroll=False' in shown) == unrolled


def test_a_plan_is_asked_for_where_the_devices_are_named():
    _, shown, said = launch('stages.sh', '--dry-run', 'x', RECIPE='base', TOPOLOGY='h100:8')
    for config in ('forecaster_lowres', 'generator:base'):
        assert (
            f're2pix plan --config={config} --topology=h100:8 --search --fill_devices > x/plans/'
            in said
        )
    assert 're2pix plan' not in shown


@pytest.mark.parametrize(
    ('script', 'arguments', 'variables', 'message'),
    [
        ('stages.sh', ['--dryrun'], {}, 'unknown flag --dryrun; expected [--dry-run] [OUT]'),
        ('stages.sh', [], {'RECIPE': 'huge'}, 'RECIPE=huge: expected tiny, base or a variant'),
        ('stages.sh', [], {'RECIPE': 'base-huge'}, 'RECIPE=base-huge: expected tiny, base or a'),
        ('slurm.sbatch', ['--dry-run'], {'RECIPE': 'huge'}, 'RECIPE=huge: expected tiny, ba'),
        ('slurm.sbatch', ['x'], {'RECIPE': 'huge'}, 'RECIPE=huge: expected tiny, base or a'),
        ('slurm.sbatch', ['--dryrun'], {}, 'unknown flag --dryrun; expected [--dry-run] [OUT]'),
        ('slurm.sbatch', ['x', '--', 'y'], {}, 'x before --: expected [--dry-run] -- COMMAND'),
        ('tpu_pod.sh', ['up'], NAMES | {'RECIPE': 'huge'}, 'RECIPE=huge: expected tiny, base or a'),
        ('tpu_pod.sh', [], NAMES, 'expected up, create, setup, start, tail, status, stop, watch'),
        ('tpu_pod.sh', ['start'], NAMES | {'OUT': 'runs/x'}, 'OUT=runs/x: expected gs://BUCKET'),
        ('tpu_pod.sh', ['start'], {}, 'TPU names the slice'),
        ('tpu_pod.sh', ['start', '-n'], NAMES, 'unknown argument -n; expected VERB [--dry-run]'),
        ('prepare.sbatch', ['--dry-run'], {}, 'expected what re2pix prepare takes, such as world'),
        ('prepare.sbatch', ['world'], {'SLURM_ARRAY_TASK_ID': '0'}, 'expected --array=1-N'),
        ('tpu_pod.sh', ['up'], NAMES | {'SLICES': 'two'}, 'SLICES=two: expected a whole number'),
        ('prepare.sbatch', ['world', '--shard=1/2'], {}, '--shard=1/2: the array says which shard'),
        ('tpu_pod.sh', ['create', '--dry-run'], NAMES | {'TYPE': 'v9'}, 'TYPE=v9: set VERSION'),
        ('stages.sh', ['--dry-run', 'x', 'y'], {}, 'x and y: expected [--dry-run] [OUT], one'),
        (
            *('stages.sh', ['--dry-run'], {'TRAINING': '--config.steps=many'}),
            "TRAINING, for forecaster:tiny: --config.steps expects an integer, got 'many'",
        ),
        (
            *('slurm.sbatch', ['x'], {'TRAINING': '--config.stepz=1'}),
            'TRAINING, for forecaster:tiny: the config has no field stepz; did you mean',
        ),
        (
            *('stages.sh', [], {'TRAINING': '--config.steps=1 steps=2'}),
            'TRAINING: steps=2: expected fields of the config, such as --config.steps=100',
        ),
        ('gpu_host.sh', ['--dry-run'], {'TOPOLOGY': 'v5e:4x4'}, 'TOPOLOGY=v5e:4x4: expected cards'),
        ('stages.sh', [], {'TOPOLOGY': 'h1000:8'}, 'TOPOLOGY=h1000:8: expected devices and their'),
        ('slurm.sbatch', ['x'], {'TOPOLOGY': 'v5e:16'}, 'TOPOLOGY=v5e:16: expected devices and'),
        ('stages.sh', ['--dry-run'], {'RESTARTS': '-1'}, 'RESTARTS=-1: expected a whole number'),
        ('slurm.sbatch', ['--', 'ls'], {'RESTARTS': 'abc'}, 'RESTARTS=abc: expected a whole num'),
        ('finetune.sh', ['videos', '--preview'], {}, 'expected MY_VIDEOS MY_MODEL [FLAGS]'),
        ('slurm.sbatch', ['--', ''], {}, 'no command after --: expected [--dry-run] -- COMMAND'),
        ('train_tiny.sh', ['--steps=2'], {}, '--steps=2: expected [OUT], one folder; --help says'),
        ('gpu_host.sh', [], {'RECIPE': 'huge'}, 'RECIPE=huge: expected tiny, base or a variant'),
        ('slurm.sbatch', ['--dry-run', '--'], {}, 'no command after --: expected [--dry-run] --'),
        (
            *('tpu_pod.sh', ['start', '--dry-run'], NAMES | {'RECIPE': 'base', 'DATA': 'data/x'}),
            'DATA=data/x: expected gs://BUCKET/FOLDER, since workers share no disk',
        ),
        (
            *('tpu_pod.sh', ['up', '--dry-run'], NAMES | {'RECIPE': 'base', 'DATA': 'gs://b/x'}),
            'PARTS=: expected gs://BUCKET/FOLDER, since workers share no disk',
        ),
    ],
)
def test_refusals_are_one_line(script, arguments, variables, message):
    status, shown, said = launch(script, *arguments, **variables)
    assert status in (1, 2) and shown == ''
    assert said.count('\n') == 1 and 'error: ' in said and message in said, said


def test_a_gpu_host_knows_the_cards_that_are_planned_for():
    (named,) = re.findall(r'=~ \^\(([a-z0-9|]+)\)', (ROOT / 'launch/gpu_host.sh').read_text())
    cards = {name for name, chip in chips.CHIPS.items() if chip.platform == 'gpu'}
    assert {*named.split('|')} == cards
    text = (ROOT / 'launch/stages.sh').read_text()
    (devices,) = re.findall(r"^cards='\(([a-z0-9|]+)\)", text, re.M)
    (tpus,) = re.findall(r"^tpus='v\(([0-9a-z|]+)\)", text, re.M)
    assert {*devices.split('|'), *('v' + kind for kind in tpus.split('|'))} == {*chips.CHIPS}


@pytest.mark.parametrize(
    ('cards', 'outcome'),
    [
        (['NVIDIA H100 80GB HBM3, 580.65, 81559, 4'] * 8, 'h100:8'),
        (['NVIDIA A100-SXM4-80GB, 581.1, 81920, 0'], 'a100:1'),
        (['NVIDIA A100-SXM4-40GB, 581.1, 40960, 0'], ''),
        (['NVIDIA L4, 580.65, 23034, 0'], ''),
        (['NVIDIA GeForce RTX 4090, 580.65, 24564, 0'], 'rtx4090:1'),
        (['NVIDIA GeForce RTX 4090 Laptop GPU, 580.65, 16376, 0'], ''),
        (['NVIDIA GeForce RTX 4060 Ti, 580.65, 16380, 0'], ''),
        (['NVIDIA H100 80GB HBM3, 535.1, 81559, 4'], 'error: driver 535.1: CUDA 13 needs 580'),
        (['NVIDIA H200, 580.1, 143771, 4', 'NVIDIA H200, 580.1, 143771, 90000'], 'error: a card'),
    ],
)
def test_a_gpu_host_is_looked_at_before_it_trains(tmp_path, cards, outcome):
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\n' + ''.join(f"echo '{card}'\n" for card in cards))
    tool.chmod(0o755)
    status, shown, said = launch('gpu_host.sh', '--dry-run', 'x', path=[tmp_path], RECIPE='base')
    if outcome.startswith('error'):
        assert (status, said.count('\n')) == (2, 1) and said.startswith(outcome)
        return
    assert status == 0
    name, driver = cards[0].split(',')[:2]
    assert shown.startswith(f'{len(cards)} x {name}, driver{driver}\n')
    assert 're2pix train --config=generator:base --workdir=x/generator' in shown
    assert (f'--topology={outcome} --search' in said) if outcome else 'replicated' in shown


def test_a_gpu_host_looks_at_the_cards_that_are_chosen(tmp_path):
    tool = tmp_path / 'nvidia-smi'
    card = 'NVIDIA H100 80GB HBM3, 580.65, 81559'
    lines = f"echo '{card}, 4'; case $1 in --id=1,2) echo '{card}, 4' ;; *) echo '{card}, 70000' ;;"
    tool.write_text(f'#!/bin/sh\n{lines} esac\n')
    tool.chmod(0o755)
    given = {'path': [tmp_path], 'RECIPE': 'base'}
    status, _, said = launch('gpu_host.sh', '--dry-run', 'x', **given)
    assert status == 2 and 'choose cards by CUDA_VISIBLE_DEVICES' in said
    status, _, said = launch('gpu_host.sh', '--dry-run', 'x', **given, CUDA_VISIBLE_DEVICES='1,2')
    assert status == 0 and '--topology=h100:2 --search' in said


def test_a_host_without_cards_is_told_what_to_do_unless_it_is_told_of_them(tmp_path):
    bare = tmp_path / 'bin'
    bare.mkdir()
    for tool in ('bash', 'dirname', 'env'):
        (bare / tool).symlink_to(shutil.which(tool))
    status, _, said = launch('gpu_host.sh', PATH=str(bare), TOPOLOGY='h100:8')
    assert status == 2 and said.startswith('error: no nvidia-smi here: install')
    assert 'TOPOLOGY=h100:8 and --dry-run' in said and said.count('\n') == 1
    given = {'TOPOLOGY': 'h100:8', 'RECIPE': 'base', 'PATH': str(bare)}
    status, shown, said = launch('gpu_host.sh', '--dry-run', 'x', **given)
    assert (
        status == 0
        and '--topology=h100:8 --search --fill_devices > x/plans/generator:base-h100:8.txt' in said
    )
    assert 're2pix train --config=generator:base --workdir=x/generator' in shown


@pytest.mark.parametrize(
    ('script', 'words', 'variables'),
    [
        ('stages.sh', ['x'], {}),
        ('slurm.sbatch', ['x'], {}),
        ('gpu_host.sh', ['x'], {'TOPOLOGY': 'h100:8'}),
        ('tpu_pod.sh', ['up'], NAMES),
    ],
)
def test_a_dry_run_is_one_wherever_its_flag_stands(script, words, variables):
    before, after = ['--dry-run', *words], [*words, '--dry-run']
    found = [launch(script, *arguments, **variables) for arguments in (before, after)]
    assert found[0] == found[1] and found[0][0] == 0 and found[0][1], found


def test_slurm_starts_one_task_a_node_with_all_its_cards(tmp_path):
    text = (ROOT / 'launch' / 'slurm.sbatch').read_text()
    asked = re.findall(r'^#SBATCH --(\S+)$', text, re.M)
    assert {'requeue', 'signal=TERM@120', 'ntasks-per-node=1', 'open-mode=append'} <= {*asked}
    status, shown, _ = launch('slurm.sbatch', '--dry-run', 'x', SLURM_GPUS_ON_NODE='4')
    assert status == 0
    assert 'JAX_LOCAL_DEVICE_IDS=0,1,2,3\n' in shown and 'RE2PIX_DISTRIBUTED=1\n' in shown
    assert '--output=./re2pix-%j-%t.log bash launch/stages.sh x \n' in shown
    _, shown, _ = launch('slurm.sbatch', '--dry-run', '--', 're2pix', 'train', '--config=a b')
    assert '.log re2pix train "--config=a b" \n' in shown and 'DEVICE_IDS' not in shown


def test_slurm_prepares_a_shard_a_task_and_then_the_whole():
    asked = {*re.findall(r'^#SBATCH --(\S+)$', (ROOT / 'launch/prepare.sbatch').read_text(), re.M)}
    assert {'requeue', 'ntasks=1', 'open-mode=append'} <= asked
    line = ['--dry-run', 'world', '--out=a b']
    array = {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_MAX': '8'}
    status, shown, _ = launch('prepare.sbatch', *line, SLURM_CPUS_PER_TASK='16', **array)
    assert status == 0
    assert shown == 're2pix prepare --processes=16 world "--out=a b" --shard=3/8 \n'
    # One of them again: an array of one.
    again = array | {'SLURM_ARRAY_TASK_MAX': '3'}
    assert launch('prepare.sbatch', *line, SHARDS='8', **again)[1].endswith(' --shard=3/8 \n')
    assert launch('prepare.sbatch', *line)[1] == 're2pix prepare world "--out=a b" \n'
    begun = array | {'SLURM_ARRAY_TASK_ID': '0', 'SLURM_ARRAY_TASK_MAX': '7'}
    status, _, said = launch('prepare.sbatch', 'world', '--out=x', **begun)
    assert status == 2 and said.endswith('an array from 0 on: expected --array=1-N\n')


def test_slurm_prepares_nothing_without_the_command(tmp_path):
    bare = tmp_path / 'bin'
    bare.mkdir()
    for tool in ('bash', 'dirname'):
        (bare / tool).symlink_to(shutil.which(tool))
    (tmp_path / 'launch').symlink_to(ROOT / 'launch')
    given = {'PATH': str(bare), 'SLURM_SUBMIT_DIR': str(tmp_path)}
    status, _, said = launch('prepare.sbatch', 'world', **given)
    assert status == 2
    wanted = "run 'source launch/environment.sh' once, then send this again\n"
    assert said == f'error: no re2pix here: {wanted}'


def filled(name, **given):
    """A file of kubectl's as envsubst gives it, its variables being what its head exports."""
    text = (ROOT / 'launch' / name).read_text()
    names = {*re.findall(r'\$\{(\w+)\}', text)}
    exported = text.partition('export ')[2]
    for variable in names:
        assert re.search(rf'\b{variable}=', exported), variable
    values = {variable: '2' for variable in names} | {'NAME': 're2pix', 'IMAGE': 'place/re2pix'}
    text = text.replace('$IMAGE"', '').replace('$((', '$$((')
    found = yaml.safe_load(string.Template(text).safe_substitute(values | given))
    assert found['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and found['kind'] == 'JobSet'
    assert found['metadata']['name'] == 're2pix'
    return found['spec']


def test_the_job_set_that_prepares_has_what_its_api_wants():
    shards, whole = filled('prepare.yaml', ARGUMENTS='world --out=gs://bucket/x')['replicatedJobs']
    job = shards['template']['spec']
    assert job['parallelism'] == job['completions'] == 2 and job['completionMode'] == 'Indexed'
    assert whole['dependsOn'] == [{'name': shards['name'], 'status': 'Complete'}]
    for index, of in (('0', shards), ('1', shards), ('', whole)):
        pod = of['template']['spec']['template']['spec']
        (container,) = pod['containers']
        assert pod['restartPolicy'] == 'Never' and container['image'] == 'place/re2pix'
        (rule,) = of['template']['spec']['podFailurePolicy']['rules']
        assert rule['onExitCodes']['containerName'] == container['name']
        # As the pod runs it, but for what it runs.
        (script,) = container['args']
        shown = subprocess.run(
            [*container['command'], script.replace('exec', 'echo')],
            env={'JOB_COMPLETION_INDEX': index, 'PATH': os.environ['PATH']},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        shard = f' --shard={int(index) + 1}/2' if index else ''
        assert shown == f're2pix prepare world --out=gs://bucket/x{shard}\n'


def test_the_job_set_of_gke_has_what_its_api_wants():
    fields = """--config.log.writers=('wandb',) --config.steps=1"""
    spec = filled('gke.yaml', TRAINING=fields)
    assert spec['failurePolicy']['maxRestarts'] > 0
    (slices,) = spec['replicatedJobs']
    assert slices['name'] and slices['replicas'] == 2
    job = slices['template']['spec']
    assert job['parallelism'] == job['completions'] == 2 and job['completionMode'] == 'Indexed'
    assert job['backoffLimit'] == 0  # the JobSet starts again, not the job
    pod = job['template']['spec']
    assert pod['restartPolicy'] == 'Never' and pod['terminationGracePeriodSeconds'] >= 60
    assert {name.rpartition('-')[2] for name in pod['nodeSelector']} == {'accelerator', 'topology'}
    (container,) = pod['containers']
    (rule,) = job['podFailurePolicy']['rules']
    assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [2]
    assert rule['onExitCodes']['containerName'] == container['name']
    assert spec['failurePolicy']['rules'][0]['action'] == 'FailJobSet'
    assert container['image'] == 'place/re2pix' and container['resources']['limits'] == {
        'google.com/tpu': 2
    }
    given = {variable['name']: variable['value'] for variable in container['env']}
    assert given['TRAINING'] == fields and given['RECIPE'] == '2'
    script = container['command'][1].removeprefix('/re2pix/')
    assert (ROOT / script).is_file()
    assert 'COPY launch /re2pix/launch\n' in (ROOT / 'launch' / 'Containerfile').read_text()
    assert all(isinstance(item['value'], str) for item in container['env'])
    environ = {item['name']: item['value'] for item in container['env']}
    assert environ['RE2PIX_DISTRIBUTED'] == '1' and environ['PLATFORM'] == 'tpu'
    # OUT lies in a bucket.
    head = (ROOT / 'launch' / 'gke.yaml').read_text()
    assert 'EXTRA=tpu,gcs ' in head and '".[tpu,gcs]"' in head
