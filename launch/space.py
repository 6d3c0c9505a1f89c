"""The page on a Hugging Face Space (SDK gradio, `app_file: space.py`): this file, beside a
requirements.txt that says `re2pix_jax[demo]`. MODEL chooses the model, `tiny` without it.
"""

import os

from re2pix_jax.demo import page, session

served = session.load(
    os.environ.get('MODEL', 'tiny'), os.environ.get('DEPTH', 'tiny/depth'), session.Limits()
)
page.serve(served, '0.0.0.0', int(os.environ.get('PORT', '7860')), False)
