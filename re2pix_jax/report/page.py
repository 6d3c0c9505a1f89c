"""A page of pictures in one file, which opens anywhere."""

import base64
import html
import io

from PIL import Image

from re2pix_jax import files

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ background: #181818; color: #ebebeb; font: 15px sans-serif; margin: 2em }}
div {{ overflow-x: auto }} /* a wide sheet is moved rather than its words made too small */
img {{ max-width: max(100%, 2200px) }}
p, pre {{ color: #aaa }}</style><h1>{title}</h1>{about}
{sections}</html>
"""


def write(path, title: str, about: str, sections):
    """Writes an HTML page, beside its place and then renamed; gives `path` back.

    Args:
        path: the file.
        title, about: text; lines of `about` stay as they are.
        sections: iterable of (caption, uint8 [H, W, 3]), or of these and a film, the bytes of an
            mp4.
    """
    files.write_text(
        path,
        PAGE.format(
            title=html.escape(title),
            about=f'<pre>{html.escape(about)}</pre>',
            sections='\n'.join(_section(*section) for section in sections),
        ),
    )
    return path


def _section(caption, picture, film=None) -> str:
    image = f'<div><img src="data:image/png;base64,{_png(picture)}"></div>'
    text = f'<h3>{html.escape(caption)}</h3>{image}'
    if film is not None:
        data = base64.b64encode(film).decode()
        text += f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'
    return text


def _png(picture) -> str:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, 'png')
    return base64.b64encode(encoded.getvalue()).decode()
