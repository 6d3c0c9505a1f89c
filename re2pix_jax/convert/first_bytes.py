"""What a file is by its first bytes, whatever its name promises."""

from re2pix_jax import files
from re2pix_jax.errors import UserError

OLD = b'\x80\x02\x8a\n' + (0x1950A86A20F9469CFC6C).to_bytes(10, 'little')
"""A torch file from before version 1.6: the pickle of a magic number."""
OTHERS = (  # first bytes, what has them, what to do
    (b'\x89HDF', 'an HDF5 file, as Keras writes it', "fetch the model's torch or safetensors file"),
    (b'GGUF', 'a GGUF file of quantised weights', "fetch the model's safetensors file"),
    (b'\x93NUMPY', 'a numpy array', "fetch the model's torch or safetensors file"),
    (b'\x80', 'a plain pickle, which torch.save did not write', 'save its tensors by torch.save'),
)


def kind_of(path) -> str:
    """'torch' (a zip, or the format before it), 'safetensors', 'json' or, of anything else, 'torch'
    or 'safetensors' by its name: their readers say what is wrong with it.

    Raises:
        UserError: the file cannot be read, or is one of another kind that can be named.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
            size = file.seek(0, 2)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
    if head.startswith((b'PK\x03\x04', OLD)):
        return 'torch'
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= size - 8:
        return 'safetensors'
    found = files.instead(head) or next(
        (rest for first, *rest in OTHERS if head.startswith(first)), None
    )
    if found:
        what, advice = found
        raise UserError(f'{path}: is {what}, and no file of weights: {advice}')
    if head.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'{'):
        return 'json'
    return 'safetensors' if str(path).endswith('.safetensors') else 'torch'
