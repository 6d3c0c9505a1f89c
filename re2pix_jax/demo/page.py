"""How the page looks: Gradio's components around `session`."""

import os
import pathlib
import signal
import sys
import tempfile

from re2pix_jax.demo import session
from re2pix_jax.errors import UserError

ENDINGS = ('.mp4', '.mov', '.mkv', '.avi', '.webm', '.m4v', '.ts', '.mts', '.mpg', '.wmv', '.flv')
KEPT = 1800  # seconds that a visitor's files are kept at most, where they do not say good-bye
LEAST = 0.1  # seconds that a slider spans at least
TITLE = 'The next seconds of a street'
ABOUT = """Drop a driving video and choose a moment. The model looks at {context} frames from there
on ({seconds:.1f} s), forecasts what they *mean*, and renders that into frames. Where the video goes
on, its frames are the truth beside the prediction. `{name}`, {height}×{width} pixels."""


def build(served: session.Served):
    """The page, not yet served: a `gradio.Blocks`, whose `launch` the caller knows.

    Raises:
        UserError: gradio is not installed.
    """
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio
    except ImportError as error:
        raise UserError('demo: needs the gradio package: pip install "re2pix_jax[demo]"') from error
    model, limits = served.model, served.limits

    def told(work, *arguments):
        """Its result; what the visitor can put right is shown to them."""
        try:
            return work(*arguments)
        except UserError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error

    def uploaded(path):
        if path is None:
            closed = gradio.Button('Predict', interactive=False)
            return gradio.Slider(maximum=LEAST, value=0, interactive=False), None, closed
        longest = told(session.admit, served, path)
        shown = told(session.moment, served, path, 0.0)
        slider = gradio.Slider(maximum=max(round(longest, 1), LEAST), value=0, interactive=True)
        return slider, shown, gradio.Button('Predict', interactive=True)

    def moved(path, start):
        return told(session.moment, served, path, start) if path else None

    def predicted(path, start, horizon, futures, seed, guidance, channels, folder):
        folder = folder or tempfile.mkdtemp(prefix='answer-', dir=os.environ.get('GRADIO_TEMP_DIR'))
        asked = (int(horizon), int(futures), int(seed), guidance, int(channels))
        found = told(session.answer, served, path, start, pathlib.Path(folder), *asked)
        return found.film, found.sheet, found.overlay, found.text, found.film, folder

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        folder = gradio.State(
            None,
            time_to_live=KEPT,
            delete_callback=lambda folder: folder and session.clear(pathlib.Path(folder), None),
        )
        context = model.context_frames
        gradio.Markdown(f'# {TITLE}')
        gradio.Markdown(
            ABOUT.format(
                context=context,
                seconds=(context - 1) / model.fps,
                name=served.name,
                height=model.size[0],
                width=model.size[1],
            )
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(
                    label=f'video, up to {limits.megabytes} MB and {limits.seconds // 60} minutes',
                    file_types=list(ENDINGS),
                    elem_id='upload',
                )
                start = gradio.Slider(
                    0, LEAST, step=0.1, label='moment, seconds', interactive=False, elem_id='moment'
                )
                horizon = gradio.Slider(1, limits.horizon, 8, step=1, label='frames to predict')
                futures = gradio.Slider(1, limits.futures, 1, step=1, label='futures')
                seed = gradio.Number(0, label='seed', precision=0, minimum=0)
                guidance = gradio.Slider(0, 2, 0, step=0.1, label='guidance')
                channels = gradio.Slider(
                    0,
                    model.generator.net.components,
                    0,
                    step=1,
                    label='leading components (0: all)',
                )
                button = gradio.Button('Predict', interactive=False, elem_id='predict')
            with gradio.Column(scale=2):
                # Titles stand above: labels of Gradio's would lie over the words of a picture.
                gradio.Markdown('what the model sees')
                context_picture = gradio.Image(show_label=False, elem_id='context')
                gradio.Markdown('truth, futures, features')
                film = gradio.Video(show_label=False, autoplay=True, elem_id='film')
                download = gradio.DownloadButton('Download the film', elem_id='download')
                gradio.Markdown('through time')
                sheet = gradio.Image(show_label=False, elem_id='sheet')
                gradio.Markdown('labels and depth, read from the forecast')
                overlay = gradio.Image(show_label=False, elem_id='overlay')
                text = gradio.Code(label='measured', interactive=False, elem_id='measured')
        upload.change(uploaded, upload, [start, context_picture, button])
        start.release(moved, [upload, start], context_picture)
        button.click(
            predicted,
            [upload, start, horizon, futures, seed, guidance, channels, folder],
            [film, sheet, overlay, text, download, folder],
            concurrency_limit=1,  # others queue: a prediction has the machine for itself
        )
    page.queue(max_size=20)
    return page


def serve(served: session.Served, host: str, port: int, share: bool) -> None:
    """Serves the page until it is interrupted; uploads and answers lie in a folder of its own,
    which goes at the end.

    Raises:
        UserError: gradio is not installed, or nothing can listen there.
    """
    # What stops a service is an end, too, at which the folder goes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix='re2pix-demo-') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        page = build(served)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=share,
                max_file_size=served.limits.megabytes * session.MEGA,
                show_error=True,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UserError(
                f'{host}:{port}: cannot be listened at ({str(error).splitlines()[0]}): choose '
                'another --port or --host'
            ) from error
        print(f'the page is at {page.local_url}', flush=True)
        page.block_thread()
