"""Several machines prepare one folder: the files of one command, whoever wrote them, whenever they
were killed; and what does not belong together is refused.
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.data import frame_records, prepare, unfinished, video, writing
from re2pix_jax.data.sources import encoded
from re2pix_jax.errors import UserError
from tests.conftest import ROOT, SIZE
from tests.data import layouts
from tests.data.stubs import Stub, hashes
from tests.running import outcomes

WORLD = ('world', '--clips=64', '--validation_clips=2', '--frames=3', '--size=32x64')


def command(out, *more):
    return [
        *(sys.executable, '-m', 're2pix_jax', 'prepare', *WORLD),
        *('--processes=1', f'--out={out}', *more),
    ]


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """The world of `WORLD`, by one command."""
    out = tmp_path_factory.mktemp('straight') / 'world'
    clips = {'train': 64, 'validation': 2}
    storing = {'image_format': None, 'quality': 95, 'processes': 1, 'strict': False}
    prepare.world(out, clips, 3, SIZE, **storing)
    found = hashes(out)
    assert len(found) == 4 + 1 + 3, 'files of train and validation, and what describes them'
    return found


class Last(Stub):
    """The last of a stub's clips, alone."""

    def __len__(self):
        return 1

    def num_frames(self, index):
        return super().num_frames(self.count - 1)

    def read(self, index, indices, labels=True):
        last = Stub(self.count, self.frames, self.size)
        return last.read(self.count - 1, indices, labels)


def wait_for(happened, seconds=240):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.005)


@pytest.mark.long
def test_four_machines_write_what_one_does_though_one_is_killed(tmp_path, straight):
    """All at once; the second is killed by force once it has a file, and given again."""
    out, partial = tmp_path / 'world', tmp_path / 'world.partial'
    start = lambda number: subprocess.Popen(
        command(out, f'--shard={number}/4'), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    shards = {number: start(number) for number in range(1, 5)}
    wait_for(lambda: [*partial.glob('train-00001.*.array_record.partial')])
    shards[2].send_signal(signal.SIGKILL)
    shards[2].communicate()
    assert not (partial / 'train-00001.json').exists()
    said = {number: shards[number].communicate()[0] for number in (1, 3, 4)}
    assert said[3] == f'{out}, shard 3 of 4: 16 train clips, 0 validation clips\n'
    assert said[4] == f'{out}, shard 4 of 4: 16 train clips, 2 validation clips\n'
    whole = [*WORLD, f'--out={out}']
    done = outcomes(
        'prepare', {'early': whole, 'again': [*whole, '--shard=2/4'], 'whole': whole, 'late': whole}
    )
    assert done['early'] == [
        2,
        '',
        f'error: {out}: shard 2 of 4 is not complete (0 of 1 file); give the same command with '
        '--shard=2/4, and then this one again\n',
    ]
    assert done['again'][0] == 0, done['again']
    assert done['whole'][:2] == [0, f'{out}: 64 train clips, 2 validation clips\n']
    assert done['late'][0] == 2 and 'exists already; remove it or choose another' in done['late'][2]
    assert hashes(out) == straight
    assert [path.name for path in tmp_path.iterdir()] == ['world']


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    clips = '--frames=3', '--size=32x64', '--processes=1'
    lines = {}
    for name, line in {
        'beyond': '--shard=5/4',
        'from 0': '--shard=0/4',
        'alone': '--shard=3',
        'word': '--shard=first/4',
        'of none': '--shard=1/0',
        'first': '--shard=1/3',
        'other number': '--shard=2/4',
        'other quality': '--shard=2/3 --image_format=jpeg',
        'other clips': '--shard=2/3 --clips=33',
        'two more': '',
        'single': '',
        'empty': '--shard=3/3',
        'other frames': '--shard=2/3 --frames=4',
    }.items():
        out = tmp_path / ('one' if name == 'single' else 'many')
        lines[name] = ['world', '--clips=32', '--validation_clips=1', *clips, f'--out={out}']
        lines[name] += line.split()
    done = outcomes('prepare', lines)
    begun = f'error: {tmp_path}/many.partial: was begun '
    for name, words in {
        'beyond': '--shard=5/4: shards are counted from 1: expected 1/4 to 4/4',
        'from 0': '--shard=0/4: shards are counted from 1: expected 1/4 to 4/4',
        'alone': '--shard=3: expected the shard and their number, for instance 3/8',
        'word': '--shard=first/4: expected the shard and their number, for instance 3/8',
        'of none': '--shard=1/0: expected the shard and their number, for instance 3/8',
        'other number': f'{begun}in 3 shards, not in 4 shards; give --shard=I/3 to go on, or '
        'remove that folder',
        'other quality': f'{begun}with other --image_format, --quality; give the same command',
        'other clips': f'{begun}with other clips; give the same command',
        'other frames': f'{begun}with other dataset, --source, --frames or --size; give the same',
        'two more': f'error: {tmp_path}/many: shard 2 of 3 is not complete (0 of 1 file), nor is '
        '3; give the same command with --shard=2/3, and then this one again',
    }.items():
        status, shown, said = done[name]
        assert (status, shown, said.count('\n')) == (2, '', 1) and words in said, said
    assert done['first'][:2] == [
        0,
        f'{tmp_path}/many, shard 1 of 3: 16 train clips, 0 validation clips\n',
    ]
    assert done['single'][0] == 0 and done['empty'][0] == 0


def test_a_preparation_by_one_is_not_gone_on_with_by_several(tmp_path):
    stopped = Stub(20, wrong=(18,))
    with pytest.raises(UserError, match='scratched'):
        frame_records.write_frames(tmp_path / 'out', {'train': stopped}, strict=True)
    with pytest.raises(
        UserError, match='out.partial: was begun without --shard, not in 2 shards; give the same'
    ):
        frame_records.write_frames(tmp_path / 'out', {'train': stopped}, shard=(1, 2))


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(writing, 'CLIPS_PER_FILE', 2)


def test_footage_with_bad_files_in_four_shards(tmp_path, small_files, capsys):
    """The whole speaks for all of them: what each file gives, and what is left out."""
    for split, count in (('train', 9), ('validation', 1)):
        for k in range(count):
            place = tmp_path / f'raw/{split}/{split}{k}.mp4'
            video.write(place, np.stack([layouts.frame(k + i) for i in range(6)]), 17)
    for bad in (4, 5):  # all of a file of records
        (tmp_path / f'raw/train/train{bad}.mp4').write_text('no video')
    storing = {'image_format': None, 'quality': 95, 'processes': 1, 'strict': False}
    raw = lambda out, **more: prepare.raw(
        tmp_path / out, 'video_folder', tmp_path / 'raw', size=(16, 32), **storing, **more
    )
    one, told = raw('one'), capsys.readouterr().err
    found = [raw('four', shard=(number, 4)) for number in (3, 1, 4, 2)]
    assert 'windows' not in capsys.readouterr().err
    assert [len(of['train']['left_out']) for of in found] == [0, 0, 0, 2]
    assert raw('four') == one
    assert capsys.readouterr().err.splitlines() == told.splitlines()[1:], 'all but the progress'
    assert hashes(tmp_path / 'four') == hashes(tmp_path / 'one')
    assert len(list((tmp_path / 'four').glob('*train.array_record-*-of-00004'))) == 4


def test_encoded_clips_in_four_shards(tmp_path, small_files, micro_bundles):
    """A clip's bits do not depend on which were encoded before it, or beside it."""
    parts = {
        name: bundles.load(micro_bundles / name, name) for name in ('encoder', 'principal', 'vae')
    }
    splits = {'train': Stub(8, 17, SIZE), 'validation': Stub(1, 17, SIZE, split='validation')}
    frame_records.write_frames(tmp_path / 'frames', splits)
    encode = lambda out, **more: prepare.encode(
        tmp_path / out, f'records:{tmp_path}/frames', parts, {}, size=SIZE, device='cpu', **more
    )
    one = encode('one')
    for number in (2, 4, 1):
        encode('four', shard=(number, 4))
    with pytest.raises(UserError, match=r'shard 3 of 4 is not complete \(0 of 1 file\); give'):
        encode('four')
    with pytest.raises(UserError, match='was begun with other device; give the same command'):
        prepare.encode(
            tmp_path / 'four',
            f'records:{tmp_path}/frames',
            parts,
            {},
            size=SIZE,
            device='TPU v5 lite',
            shard=(3, 4),
        )
    encode('four', shard=(3, 4))
    assert encode('four') == one
    assert hashes(tmp_path / 'four') == hashes(tmp_path / 'one')
    frame_records.write_frames(tmp_path / 'lone_frames', {'train': Last(8, 17, SIZE)})
    prepare.encode(
        tmp_path / 'lone', f'records:{tmp_path}/lone_frames', parts, {}, ('train',), SIZE
    )
    lone, all_ = (encoded.Encoded(tmp_path / name, 'train', SIZE) for name in ('lone', 'four'))
    assert lone.num_frames(0) == 24 and lone.rows(0, range(24)) == all_.rows(7, range(24))


def test_another_source_under_the_same_names_is_refused(tmp_path, small_files, micro_bundles):
    """Prepared anew in between, with other frames."""
    parts = {name: bundles.load(micro_bundles / name, name) for name in ('encoder', 'principal')}
    for name, shift in (('frames', 12), ('others', 13)):
        frame_records.write_frames(tmp_path / name, {'train': Stub(3, shift, SIZE)})
    encode = lambda source, **more: prepare.encode(
        tmp_path / 'out', 'records:' + source, parts, {}, ('train',), SIZE, **more
    )
    encode(f'{tmp_path}/frames', shard=(1, 2))
    (tmp_path / 'frames').rename(tmp_path / 'former')
    (tmp_path / 'others').rename(tmp_path / 'frames')
    with pytest.raises(UserError, match='out.partial: was begun with other clips'):
        encode(f'{tmp_path}/frames', shard=(2, 2))


def test_two_of_the_same_shard_do_no_harm(tmp_path, small_files):
    """The second begins and ends while the first is in its first file."""
    frame_records.write_frames(tmp_path / 'straight', {'train': Stub(7)})
    shard = lambda source: frame_records.write_frames(
        tmp_path / 'out', {'train': source}, shard=(1, 2)
    )
    first = Stub(7)
    read = first.read

    def interrupted(index, *arguments):
        if first.reads == [] and index == 0:
            shard(Stub(7))
        return read(index, *arguments)

    first.read = interrupted
    shard(first)
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(7)}, shard=(2, 2))
    assert len(list((tmp_path / 'out.partial').glob('*.array_record'))) == 6, 'two of them twice'
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(7)})
    assert hashes(tmp_path / 'out') == hashes(tmp_path / 'straight')


def test_a_shard_given_again_while_the_folder_is_made_says_so(tmp_path, small_files):
    late = Stub(3)
    read = late.read

    def overtaken(index, *arguments):
        if late.reads == [] and index == 0:
            for shard in ((1, 1), None):
                frame_records.write_frames(tmp_path / 'out', {'train': Stub(3)}, shard=shard)
        return read(index, *arguments)

    late.read = overtaken
    with pytest.raises(UserError, match='out.partial: another command has finished or removed it'):
        frame_records.write_frames(tmp_path / 'out', {'train': late}, shard=(1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_files_by_another_plan_are_refused(tmp_path, small_files):
    """Two machines that begin in the same moment, each with settings of its own."""
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(4)}, quality=1, shard=(1, 2))
    note = next((tmp_path / 'out.partial').glob('train-*.json'))
    note.write_text(note.read_text().replace('"plan": "', '"plan": "0'))
    with pytest.raises(UserError, match=f'{note}: was written by a command with other settings'):
        frame_records.write_frames(tmp_path / 'out', {'train': Stub(4)})


def test_what_a_plan_left_that_is_gone_is_not_taken_over(tmp_path):
    partial = tmp_path / 'out.partial'
    partial.mkdir()
    for name in ('train-00000.json', 'manifest.json', 'train-00000.0123abcd.array_record'):
        (partial / name).write_text('{"plan": ""}')
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(2)})
    frame_records.write_frames(tmp_path / 'straight', {'train': Stub(2)})
    assert hashes(tmp_path / 'out') == hashes(tmp_path / 'straight')
    assert not (tmp_path / 'out' / unfinished.PLAN).exists()
