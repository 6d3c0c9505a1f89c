"""What people bring that cannot be used: each is refused in one line that names the file, what it
is, and what to do; and exit status 2. (Rooms test more kinds of each beside their readers.)
"""

import io
import json
import os
import pathlib
import shutil
import struct
import tempfile
import wave

import numpy as np
import pytest
from PIL import Image

from re2pix_jax import bundles
from re2pix_jax.commands import _config, cli, compare
from re2pix_jax.convert import dinov2, torch_file
from re2pix_jax.data import prepare, records, sources, video, writing
from re2pix_jax.data.sources import table
from re2pix_jax.errors import UserError
from re2pix_jax.training import loop
from tests import running
from tests.data import index_coded, layouts

LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n'
HTML = b'<!DOCTYPE html><html>not found</html>'


def jpeg(number, size=(48, 64)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), number, np.uint8)).save(buffer, 'jpeg')
    return buffer.getvalue()


def images(**files):
    """A folder of them: name → bytes."""

    def make(place):
        place.mkdir()
        for name, content in files.items():
            (place / name.replace('__', '.')).write_bytes(content)

    return make


def content(data):
    return lambda place: place.write_bytes(data)


def coded(frames, fps, cut=None):
    def make(place):
        index_coded.write(place, range(frames), np.arange(frames) / fps)
        if cut:
            place.write_bytes(place.read_bytes()[:cut])

    return make


def sound(place):
    with wave.open(str(place), 'wb') as file:
        file.setparams((1, 2, 8000, 0, 'NONE', ''))
        file.writeframes(struct.pack('<800h', *range(800)))


def bundle(change):
    """A good bundle, changed."""

    def make(place):
        shutil.copytree(make.micro / 'encoder', place)
        change(place)

    return make


def config(**entries):
    def change(place):
        about = json.loads((place / 'config.json').read_text())
        (place / 'config.json').write_text(json.dumps(about | entries))

    return bundle(change)


def prepared(change):
    """Good prepared clips, changed."""

    def make(place):
        shutil.copytree(make.micro / 'clips', place)
        change(place)

    return make


def manifest(**entries):
    def change(place):
        about = json.loads((place / records.MANIFEST).read_text())
        (place / records.MANIFEST).write_text(json.dumps(about | entries))

    return prepared(change)


def segments(text):
    def make(place):
        index_coded.write(place.parent / 'a.mp4', range(60), np.arange(60) / 30)
        place.write_text(text)

    return make


def reports(**changes):
    """Workdirs of evaluations by name, with what of their protocols is different."""

    def make(place):
        for name, change in changes.items():
            (place / name).mkdir(parents=True)
            report = {'protocol': {'evals': {}, 'horizon': 1, **change}, 'overall': {}}
            (place / name / 'metrics.json').write_text(json.dumps({'': report}))

    return make


def dataset(write, change=None):
    def make(place):
        place.mkdir()
        write(place)
        if change:
            change(place)

    return make


def cut(file, size):
    return lambda place: (place / file).write_bytes((place / file).read_bytes()[:size])


def nothing(place):
    pass


def source(kind, split='train'):
    return lambda place: sources.open_source(f'{kind}:{place}', split, (16, 32))


def read(**options):
    return lambda place: video.read(place, **options)


def saved(dtype):
    about = {'w': {'dtype': dtype, 'shape': [4], 'data_offsets': [0, 4 if '8' in dtype else 16]}}
    header = json.dumps(about).encode()
    size = about['w']['data_offsets'][1]
    return content(len(header).to_bytes(8, 'little') + header + bytes(size))


tensors = torch_file.tensors
opened = lambda place: bundles.load(str(place))
compared = lambda place: compare.main(['', str(place), str(place)])
exported = lambda place: loop.open_run(str(place), None)
configured = lambda place: _config.checked(['', f'--config={place}'])
opened_table = lambda place: table.Table(place)

# Name of the file: (how it is made, who takes it, what the line says of it, what to do).
BAD = {
    # footage
    'gone.mp4': (nothing, read(), 'no such file', 'expected a video file or a folder of images'),
    'link.mp4': (
        lambda place: place.symlink_to('b'),
        read(),
        'is a link to b, where',
        'expected a',
    ),
    'pipe.mp4': (
        lambda place: os.mkfifo(place),
        read(),
        'is a pipe',
        'write what comes out of it to a file',
    ),
    'letter.mp4': (content(b'Dear reader'), read(), 'not a readable video', 'expected a whole'),
    'empty.mp4': (content(b''), read(), 'is empty', 'fetch the file itself'),
    'page.mp4': (content(HTML), read(), 'is a web page', 'fetch the file itself'),
    'pointer.mp4': (content(LFS), read(), 'is a git-lfs pointer', 'git lfs pull'),
    'packed.mp4': (content(b'PK\3\4' + bytes(99)), read(), 'is a zip archive', 'unpack it'),
    'torn.mp4': (coded(60, 30, 200), read(), 'not a readable video', 'expected a whole file'),
    'sound.mp4': (sound, read(), 'holds no video', 'expected a video'),
    'short.mp4': (coded(10, 30), read(fps=10, min_frames=5), '4 frames at 10', 'a longer clip'),
    'late.mp4': (coded(60, 30), read(start=900), '2 s long', 'start may be at most 1.96'),
    'slow.mp4': (coded(30, 3), read(fps=6), '3 frames per second', 'give a faster video'),
    'small.mp4': (coded(30, 30), read(min_size=500), '96x160', 'at least 500'),
    'no_images': (images(), read(), 'no images', 'expected .png or .jpg'),
    'torn_image': (images(a0__jpg=jpeg(1), a1__jpg=b'\xff\xd8\xff'), read(), 'a1.jpg', 'replace'),
    'two_sizes': (images(a0__jpg=jpeg(1), a1__jpg=jpeg(1, (8, 8))), read(), 'sizes', 'one size'),
    'twice': (images(a1__jpg=jpeg(1), a01__jpg=jpeg(2)), read(), 'of one number', 'keep one'),
    # sources
    'nowhere': (nothing, source('videos'), 'no such folder', 'expected a folder of videos'),
    'no_videos': (images(readme__txt=b'x'), source('videos'), 'no videos', '.mp4'),
    'not_prepared': (images(a0__jpg=jpeg(1)), source('records'), 'no manifest', 'make them with'),
    'torn_manifest': (prepared(cut(records.MANIFEST, 99)), source('records'), 'JSON', 'prepare'),
    'later_records': (manifest(format=99), source('records'), 'format 99', 'prepare the folder'),
    'lost_split': (prepared(nothing), source('records', 'test'), "no split 'test'", 'there is'),
    'frames': (prepared(nothing), source('encoded'), 'holds frames', '"records:'),
    'no_cityscapes': (images(), source('cityscapes'), 'Cityscapes', 'leftImg8bit_sequence'),
    'no_nuscenes': (images(), source('nuscenes'), 'nuScenes', 'sample_data.json'),
    'no_kitti': (images(), source('kitti'), 'KITTI', 'image_02'),
    'no_covla': (images(), source('covla'), 'CoVLA', 'videos/CLIP.mp4'),
    'torn_nuscenes': (
        dataset(
            lambda place: layouts.nuscenes(place, ['scene-0001']),
            cut('v1.0-trainval/sample_data.json', 50),
        ),
        source('nuscenes'),
        'sample_data.json',
        'unpack the metadata',
    ),
    'damaged_clips': (
        prepared(lambda place: [flip(file) for file in place.glob('*array_record*')]),
        prepare.check,
        'not as the manifest says',
        'prepare the folder again',
    ),
    'occupied': (images(), lambda place: writing.write(place, {}, *[None] * 3), 'exists', 'choose'),
    # tables
    'no_table.csv': (nothing, opened_table, 'no such file', 'expected a table'),
    'folder.csv': (images(), opened_table, 'is a folder', 'expected a table'),
    'picture.csv': (content(b'\xff\xd8\xff'), opened_table, 'not a table', 'UTF-8'),
    'no_header.csv': (segments('a.mp4,0,1\n'), opened_table, 'no column path', 'expected path,'),
    'no_rows.csv': (segments('path\n'), opened_table, 'no row', 'a row for each segment'),
    'overlap.csv': (
        segments('path,start,end,split\na.mp4,0,1.5,train\na.mp4,1,2,validation\n'),
        opened_table,
        'lines 2 and 3 overlap',
        'change start or end',
    ),
    'no_split.csv': (segments('path,split\na.mp4,hold\n'), opened_table, "'hold'", 'one of train'),
    'lost.csv': (segments('path\nb.mp4\n'), opened_table, 'line 2: ', 'expected a video'),
    'backwards.csv': (segments('path,start,end\na.mp4,2,1\n'), opened_table, '2 and 1', '< end'),
    'torn.jsonl': (segments('{"path": "a.mp4"}\n{"path"'), opened_table, 'line 2', 'no JSON'),
    'list.jsonl': (segments('{"path": "a.mp4"}\n["b"]'), opened_table, 'line 2', 'an object'),
    # bundles
    'no_model': (nothing, opened, 'no such model', 'give a bundle'),
    'no_bundle': (images(), opened, 'without config.json', 'weights.safetensors'),
    'torn_config': (bundle(cut('config.json', 9)), opened, 'not readable JSON', 'again'),
    'torn_weights': (bundle(cut('weights.safetensors', 5000)), opened, 'not a whole', 'again'),
    'pointer_weights': (
        bundle(lambda place: (place / 'weights.safetensors').write_bytes(LFS)),
        opened,
        'git-lfs pointer',
        'git lfs pull',
    ),
    'later_bundle': (config(format=99), opened, 'format 99', 'update'),
    'wheel': (config(kind='wheel'), opened, 'got "wheel"', 'expected "encoder"'),
    'other_kind': (
        config(),
        lambda place: bundles.load(str(place), 'vae'),
        'holds kind encoder',
        'kind vae is needed',
    ),
    # published files
    'page.pth': (content(HTML), tensors, 'is a web page', 'fetch the file itself'),
    'pointer.safetensors': (content(LFS), tensors, 'git-lfs pointer', 'git lfs pull'),
    'empty.pth': (content(b''), tensors, 'is empty', 'fetch'),
    'archive.pth': (content(b'\x1f\x8b\x08\0'), tensors, 'gzip archive', 'unpack'),
    'pickle.pth': (content(b'\x80\x04}.'), tensors, 'plain pickle', 'torch.save'),
    'numpy.pth': (content(b'\x93NUMPY\1'), tensors, 'numpy array', 'fetch'),
    'safe.pth': (saved('F32'), torch_file.read, 'is a safetensors file', 'expected one that torch'),
    'strange.safetensors': (saved('F8_E8M0'), tensors, 'of type F8_E8M0', 'save it as F32'),
    'folder.pth': (images(), tensors, 'cannot be read', 'directory'),
    'keys.safetensors': (
        saved('F32'),
        lambda place: dinov2.convert(place, 2, (0, 1)),
        'has no tensor',
        'right kind of file',
    ),
    'parts.index.json': (
        content(b'{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'),
        tensors,
        'model-00001-of-00002.safetensors',
        'fetch',
    ),
    # runs, reports and configs
    'no_run': (images(), exported, 'holds no checkpoint', 'give the --workdir'),
    'no_report': (images(), compared, 'no metrics.json', 'give a --workdir'),
    'torn_report': (images(metrics__json=b'{'), compared, 'JSON', 'evaluate again'),
    'a_prediction': (
        images(metrics__json=b'{"horizon": 4, "steps": []}'),
        compared,
        'holds no evaluation (a prediction?)',
        'give a --workdir of re2pix evaluate',
    ),
    'two_protocols': (
        reports(one={}, other={'horizon': 3, 'name': 'dino-foresight-mid'}),
        lambda place: compare.main(['', f'{place}/one', f'{place}/other']),
        'scores of different protocols do not go into one table; they differ in horizon (1 ag',
        'they differ in horizon (1 against 3), name (None against dino-foresight-mid)',
    ),
    'no_config.py': (nothing, configured, 'not found', 'expected'),
    'fault.py': (content(b'def get_config(): return 1 / 0'), configured, 'ZeroDivision', 'used'),
    'list.py': (content(b'def get_config(): return []'), configured, 'list', 'ConfigDict'),
}


def flip(file):
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = b'\0' * 64
    file.write_bytes(data)


def test_there_are_enough():
    assert len(BAD) >= 40
    assert all(len(words) > 2 for _, _, *both in BAD.values() for words in both)


@pytest.mark.filterwarnings('ignore:the load_module')  # by which ml_collections reads configs
@pytest.mark.parametrize('name', BAD)
def test_refused_in_one_line(name, micro_bundles, tmp_path, capsys):
    make, take, what, todo = BAD[name]
    make.micro = micro_bundles
    place = tmp_path / name
    make(place)
    before = sorted(map(str, tmp_path.rglob('*')))
    with pytest.raises(Exception) as caught:
        take(place)
    capsys.readouterr()
    message = cli._mistake(caught.value)
    assert message is not None, 'no mistake of the user'
    assert cli._fail(message) == 2
    line = capsys.readouterr().err
    print(line, end='')
    assert line.startswith('error: ') and line.count('\n') == 1
    assert name in line and what in line and todo in line
    assert sorted(map(str, tmp_path.rglob('*'))) == before, 'nothing is left behind'


def test_what_may_not_be_read_is_refused(capsys):
    """As another user: root may read all."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        place = pathlib.Path(folder, 'locked.mp4')
        coded(30, 30)(place)
        place.chmod(0)
        me = os.geteuid()
        os.seteuid(me or 65534)
        try:
            with pytest.raises(UserError) as caught:
                video.read(place)
        finally:
            os.seteuid(me)
    line = str(caught.value)
    assert line == f'{place}: cannot be read (permission denied); make it readable'


# A flag of `predict`: what the line says.
FLAGS = {
    '--start=-1': '--start=-1: -1.0 is not a non-negative number',
    '--horizon=0': '--horizon=0: 0 is not a positive integer',
    '--num_futures=two': '--num_futures=two: expected an integer',
    '--guidance=much': '--guidance=much: expected a number',
    '--sampler=magic': "sampler 'magic' is unknown; choose one of euler",
    '--horizn=3': 'unknown flag --horizn; did you mean --horizon?',
    '--world=moon:1': '--world=moon:1: expected',
    '--model=nowhere': 'nowhere: no such model',
}


def test_flags_that_do_not_fit_end_with_status_2(tmp_path):
    base = ['--world=validation:0', f'--out={tmp_path}/out']
    found = running.outcomes('predict', {flag: [*base, flag] for flag in FLAGS})
    for flag, words in FLAGS.items():
        status, out, err = found[flag]
        assert (status, out) == (2, '') and err.startswith('error: ') and words in err, err
        assert err.count('\n') == 1
    assert not list(tmp_path.iterdir())
