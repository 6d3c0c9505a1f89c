"""The page in a real browser: chromium, driven by Playwright. Run with --slow."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.conftest import ROOT
from tests.running import environment, hear_ctrl_c

pytest.importorskip('gradio')
playwright = pytest.importorskip('playwright.sync_api')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='no chromium is installed'),
]
QUIET = (
    *('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
)
SECONDS = 300_000  # milliseconds, of a busy machine


def free_port():
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        return listening.getsockname()[1]


class Demo:
    """A served page: its address, its process and the folder that it may write to."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        variables = {'TMPDIR': str(folder), 'PYTHONPATH': str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, '-m', 're2pix_jax', 'demo', f'--port={free_port()}', *arguments],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=hear_ctrl_c,
        )
        line = self.process.stdout.readline()
        self.url = re.search(r'http://\S+', line)[0]

    def memory(self) -> int:
        """Megabytes that it holds."""
        with open(f'/proc/{self.process.pid}/statm', encoding='ascii') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') // 1_000_000

    def close(self, by=signal.SIGINT) -> int:
        self.process.send_signal(by)
        return self.process.wait(60)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('served')
    found = Demo(folder, '--megabytes=20')
    yield found
    found.close()
    assert not list(folder.glob('re2pix-demo-*'))  # nothing is left


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield found
        found.close()


@pytest.fixture
def tab(demo, browser):
    page = opened(demo, browser)
    yield page
    page.close()


def opened(demo, browser):
    page = browser.new_page(viewport={'width': 1300, 'height': 1500})
    page.set_default_timeout(SECONDS)
    page.goto(demo.url)
    page.wait_for_selector('#upload input[type=file]', state='attached')
    return page


def upload(page, file):
    page.set_input_files('#upload input[type=file]', str(file))


def ready(page):
    page.wait_for_selector('#context img')
    page.wait_for_selector('#predict:not([disabled])')


def test_upload_predict_play(tab, brought, tmp_path):
    upload(tab, brought / 'street.mp4')
    ready(tab)
    tab.click('#predict')
    tab.wait_for_selector('#film video')
    tab.wait_for_selector('#overlay img')
    tab.wait_for_function('document.querySelector("#film video").readyState >= 2')
    assert tab.eval_on_selector('#film video', 'v => [v.videoWidth > 100, v.error]') == [True, None]
    assert 'PSNR' in tab.inner_text('#measured')
    with tab.expect_download() as download:
        tab.click('#download')
    download.value.save_as(tmp_path / 'got.mp4')
    assert (tmp_path / 'got.mp4').stat().st_size > 1000


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('letter.mp4', 'letter.mp4: not a readable video'),
        ('short.mp4', 'before it predicts'),
        ('long.mp4', '10h 00m long'),
        ('huge.mp4', 'maximum allowed size'),
    ],
)
def test_bad_files_are_said(tab, brought, tmp_path, name, said):
    file = brought / name
    if name == 'huge.mp4':
        file = tmp_path / name
        with open(file, 'wb') as sparse:
            sparse.truncate(2_000_000_000)
    upload(tab, file)
    tab.wait_for_selector(f'text={said}')
    assert tab.query_selector('#predict[disabled]') is not None


def test_two_tabs_at_once(demo, browser, brought):
    tabs = [opened(demo, browser) for _ in range(2)]
    for page in tabs:
        upload(page, brought / 'street.mp4')
    for page in tabs:
        ready(page)
        page.click('#predict')
    for page in tabs:
        page.wait_for_selector('#film video')
        assert 'tiny on street.mp4' in page.inner_text('#measured')
        page.close()


def test_twenty_uploads_do_not_grow(demo, browser, brought):
    page = opened(demo, browser)
    sizes = []
    for _ in range(20):
        upload(page, brought / 'street.mp4')
        ready(page)
        sizes.append(demo.memory())
        page.click(
            '#upload button[aria-label="Clear"], #upload button[aria-label="Remove this file"]'
        )
        page.wait_for_selector('#predict[disabled]')
    page.close()
    assert sizes[-1] - sizes[4] < 60, sizes


def test_files_of_the_machine_are_not_given(demo):
    for path in ('/etc/passwd', '../../../../etc/passwd', str(ROOT / 'setup.py')):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f'{demo.url}gradio_api/file={path}', timeout=60)


@pytest.mark.parametrize('by', [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_an_interrupted_page(by, tmp_path, browser, brought):
    found = Demo(tmp_path)
    page = opened(found, browser)
    upload(page, brought / 'street.mp4')
    ready(page)
    assert list(tmp_path.rglob('street.mp4'))
    assert found.close(by) == (143 if by == signal.SIGTERM else 0)
    page.close()
    time.sleep(1)
    assert not list(tmp_path.glob('re2pix-demo-*'))
