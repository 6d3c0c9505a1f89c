r"""A page in the browser: drop a video, choose the moment, see its futures.

    re2pix demo
    re2pix demo --model=my_model --depth= --port=8000

On this machine alone unless --host says otherwise (0.0.0.0: every one that reaches it). Uploads are
limited by --megabytes and --seconds, lie in a folder of their own and are deleted; several visitors
queue. Needs pip install "re2pix_jax[demo]". launch/space.py serves the page on a Hugging Face
Space.
"""

from re2pix_jax.commands import cli  # noqa: F401 (quietens native libraries while they load)

# isort: split
from absl import flags

from re2pix_jax.demo import page, session

MODEL = flags.DEFINE_string('model', 'tiny', 'shipped name, bundle folder or hf:owner/repo')
DEPTH = flags.DEFINE_string(
    'depth', 'tiny/depth', "head that reads depth from the model's features; none: no depth"
)
HOST = flags.DEFINE_string('host', '127.0.0.1', 'address to listen at')
PORT = flags.DEFINE_integer('port', 7860, 'port to listen at', lower_bound=1, upper_bound=65535)
SHARE = flags.DEFINE_bool('share', False, "a public address by Gradio's servers")
_LIMITS = session.Limits()
MEGABYTES = flags.DEFINE_integer('megabytes', _LIMITS.megabytes, 'of an upload', lower_bound=1)
SECONDS = flags.DEFINE_integer('seconds', _LIMITS.seconds, 'of an upload', lower_bound=1)
HORIZON = flags.DEFINE_integer('horizon', _LIMITS.horizon, 'frames at most', lower_bound=1)
FUTURES = flags.DEFINE_integer('futures', _LIMITS.futures, 'futures at most', lower_bound=1)
REMOTE = ('model', 'depth')


def main(argv):
    del argv
    limits = session.Limits(MEGABYTES.value, SECONDS.value, HORIZON.value, FUTURES.value)
    served = session.load(MODEL.value, DEPTH.value, limits)
    page.serve(served, HOST.value, PORT.value, SHARE.value)
