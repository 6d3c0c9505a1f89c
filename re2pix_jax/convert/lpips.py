"""LPIPS: torchvision's AlexNet (alexnet-owt-*.pth) and the linear weights of lpips 0.1 (alex.pth),
one bundle of both.
"""

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.table import Table, conv, layer
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.networks.lpips import LPIPS, AlexLPIPS

PLACES = (0, 3, 6, 8, 10)  # of the convolutions in torchvision's list of layers
TABLE = Table(
    'LPIPS on AlexNet',
    (
        *(
            rule
            for index, place in enumerate(PLACES)
            for rule in layer(f'features.{place}', f'params/conv_{index}', conv)
        ),
        ('lin{}.model.1.weight', 'params/linear_{}/kernel', conv),
    ),
    ignored=(('classifier.*', 'behind the features'),),
)


def convert(path, linear) -> LPIPS:
    """Reads the two files.

    Args:
        path: AlexNet.
        linear: the linear weights; None is refused, for LPIPS is nothing without them.

    Raises:
        UserError: a file cannot be read, or something in it does not fit; all tensors that do not
            are in one message.
    """
    if linear is None:
        raise UserError(
            f"{path}: LPIPS needs its linear weights too: pass the lpips package's "
            'weights/v0.1/alex.pth as --linear'
        )
    net = AlexLPIPS()
    expected = KINDS['lpips'].expected(net, {}, {}, str(path))
    return LPIPS(
        TABLE.convert(
            torch_file.tensors(path) | torch_file.tensors(linear), expected, f'{path} and {linear}'
        ),
        net,
    )
