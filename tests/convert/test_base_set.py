"""The base-size set: small files in the official formats, fetched from a server of this machine,
interrupted, damaged, changed.
"""

import contextlib
import functools
import http.server
import json
import shutil
import socket
import threading

import pytest

from re2pix_jax import bundles
from re2pix_jax.convert import base_set, download
from re2pix_jax.errors import UserError
from tests.conftest import ROOT
from tests.convert.test_autoencoder_kl import DATA
from tests.running import outcomes

GOLDEN = ROOT.parent / 'shared' / 'golden' / 'dino_foresight_small'
NAMES = ('encoder', 'vae', 'forecaster', 'segmentation')
SMALL = {  # what no file of the small networks says
    'encoder': {'heads': 3, 'image_size': (56, 112)},
    'forecaster': {'heads': 3},
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Knows parts of files, and cuts the line after so many bytes."""

    cut = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.translate_path(self.path)
        try:
            data = open(path, 'rb').read()
        except OSError:
            self.send_error(404)
            return
        start = int(self.headers.get('Range', 'bytes=0-').removeprefix('bytes=').rstrip('-'))
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        self.server.asked.append((self.path, start))
        self.wfile.write(data[start:][: Handler.cut])


@contextlib.contextmanager
def serving(folder):
    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        Handler.cut = None
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(tmp_path):
    (tmp_path / 'served').mkdir()
    with serving(tmp_path / 'served') as served:
        served.url = f'http://127.0.0.1:{served.server_port}'
        served.folder = tmp_path / 'served'
        yield served


def test_a_file_is_gone_on_with(server, tmp_path):
    data = bytes(range(256)) * 20000
    (server.folder / 'w.bin').write_bytes(data)
    path = tmp_path / 'files' / 'w.bin'
    Handler.cut = 2_000_000
    with pytest.raises(UserError, match=r'w.bin: ended after 2,000,000 of 5,120,000 bytes: give'):
        download.fetch(f'{server.url}/w.bin', path)
    assert not path.exists()
    Handler.cut = None
    download.fetch(f'{server.url}/w.bin', path)
    assert path.read_bytes() == data and server.asked == [('/w.bin', 0), ('/w.bin', 2_000_000)]
    assert [file.name for file in path.parent.iterdir()] == ['w.bin']
    with pytest.raises(UserError, match=r'/none: could not be fetched \(Not Found\): give'):
        download.fetch(f'{server.url}/none', tmp_path / 'files' / 'none')
    with pytest.raises(UserError, match=r'could not be fetched .*put it at .*/files/x'):
        download.fetch('http://127.0.0.1:9/x', tmp_path / 'files' / 'x')


def test_an_answer_that_is_none_is_a_line(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as listening:

        def answer():
            with listening.accept()[0] as heard:
                heard.recv(4096)
                heard.sendall(b'nonsense\r\n\r\n')

        threading.Thread(target=answer, daemon=True).start()
        place = f'http://127.0.0.1:{listening.getsockname()[1]}/x'
        with pytest.raises(UserError, match=r'/x: could not be fetched .*nonsense'):
            download.fetch(place, tmp_path / 'x')


@pytest.fixture
def items(server):
    if not GOLDEN.is_dir():
        pytest.skip("the authors' numbers are not there")
    found = tuple(
        item._replace(options=item.options | SMALL.get(item.name, {}))
        for item in base_set.chosen(list(NAMES))
    )
    sources = {
        'dinov2_vitb14_reg4_pretrain.pth': GOLDEN / 'dinov2_reg.pth',
        'diffusion_pytorch_model.safetensors': (
            DATA / 'sd_vae' / 'diffusion_pytorch_model.safetensors'
        ),
        'config.json': DATA / 'sd_vae' / 'config.json',
        'dinof_lowres.ckpt': GOLDEN / 'dinof.ckpt',
        'dinov2_pca_448_1152.pth': GOLDEN / 'pca.pth',
        'head_segm_pca1152.ckpt': GOLDEN / 'head_segm.ckpt',
    }
    for name, source in sources.items():
        shutil.copyfile(source, server.folder / name)
    return found


def test_the_set_is_made_checked_and_gone_on_with(server, items, tmp_path):
    lines, out, files = [], tmp_path / 'base', tmp_path / 'files'
    make = lambda: base_set.make(items, out, files, server.url, lines.append)
    whole = (server.folder / 'head_segm_pca1152.ckpt').read_bytes()
    (server.folder / 'head_segm_pca1152.ckpt').write_bytes(b'<html>too many downloads</html>')
    with pytest.raises(UserError, match=r'/head_segm_pca1152.ckpt: sent no such file: .* web page'):
        make()
    assert not list(files.glob('head_segm*')) and not bundles.is_bundle(out / 'forecaster')
    asked = len(server.asked)
    (server.folder / 'head_segm_pca1152.ckpt').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r'files/head_segm_pca1152.ckpt: '):
        make()  # the archive is cut
    assert bundles.is_bundle(out / 'forecaster') and not (out / 'segmentation').exists()
    (files / 'head_segm_pca1152.ckpt').unlink()
    (server.folder / 'head_segm_pca1152.ckpt').write_bytes(whole)
    with pytest.raises(UserError, match=r'has sha256 .*, expected .*published.json if it may'):
        make()  # a file that was another one before
    record = json.loads((out / base_set.RECORD).read_text())
    del record['head_segm_pca1152.ckpt']
    (out / base_set.RECORD).write_text(json.dumps(record))
    make()
    assert len(server.asked) == asked + 2  # the others are there
    assert {name for name in NAMES if bundles.is_bundle(out / name)} == set(NAMES)
    forecaster = bundles.load(out / 'forecaster')
    assert bundles.identity(forecaster.encoder) == bundles.digest(out / 'encoder')
    record = json.loads((out / base_set.RECORD).read_text())
    assert any(
        f'dinof_lowres.ckpt: {record["dinof_lowres.ckpt"]["bytes"] / 1e6:,.1f} MB, sha256 '
        f'{record["dinof_lowres.ckpt"]["sha256"]}' == line
        for line in lines
    )
    weights = files / 'dinof_lowres.ckpt'
    weights.write_bytes(weights.read_bytes()[:-1] + b'\1')
    with pytest.raises(UserError, match=r'dinof_lowres.ckpt: has sha256 .*, expected'):
        make()


def test_a_hash_that_a_name_promises_is_checked(server, tmp_path):
    (server.folder / 'pt_inception-2015-12-05-6726825d.pth').write_bytes(b'PK\3\4other')
    items = base_set.chosen(['inception'])
    with pytest.raises(UserError, match=r'6726825d.pth: has sha256 .*, expected 6726825d: remove'):
        base_set.make(items, tmp_path / 'base', tmp_path / 'files', server.url, print)
    assert not (tmp_path / 'base' / 'inception').exists()


def test_the_command_lists_and_refuses(server, tmp_path):
    found = outcomes(
        'published',
        {
            'list': ['--list'],
            'no place': [],
            'strange': [f'{tmp_path}/base', '--only=encoder,dit'],
            'none': [f'{tmp_path}/base', '--only='],
            'nowhere': [f'{tmp_path}/base', '--only=vae', f'--mirror={server.url}/none'],
        },
    )
    status, out, _ = found['list']
    assert status == 0 and out.count('https://') == len(base_set.needed(base_set.BASE)) == 11
    assert found['no place'][2].startswith('error: published: expected a folder to write to')
    assert found['strange'][0] == 2 and found['strange'][2].startswith(
        'error: --only=dit: expected some of encoder, vae, forecaster'
    )
    assert found['none'][0] == 2 and found['none'][2].startswith(
        'error: --only=: expected some of encoder, vae, forecaster'
    )
    assert found['nowhere'][0] == 2 and 'could not be fetched (Not Found)' in found['nowhere'][2]
    assert not (tmp_path / 'base' / base_set.RECORD).exists()
