"""Images whose values are numbers."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data.sources import planes
from re2pix_jax.errors import UserError


def write(path, bits, row, grey=0):
    """A PNG of one row, byte by byte: Pillow writes no grey of 2 and 4 bits."""

    def chunk(name, data):
        return (
            struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        )

    packed = np.packbits(np.concatenate([np.unpackbits(np.uint8([v]))[-bits:] for v in row]))
    header = struct.pack('>IIBBBBB', len(row), 1, bits, grey, 0, 0, 0)
    data = zlib.compress(b'\0' + packed.tobytes())
    palette = chunk(b'PLTE', bytes(3 * 2**bits)) if grey == 3 else b''
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + palette
        + chunk(b'IDAT', data)
        + chunk(b'IEND', b'')
    )
    return path


@pytest.mark.parametrize('bits', [2, 4])
def test_numbers_of_few_bits_are_no_shades(tmp_path, bits):
    row = range(2**bits)
    path = write(tmp_path / 'grey.png', bits, row)
    assert np.asarray(Image.open(path)).max() == 255, 'the reason'
    with pytest.raises(UserError, match=f'grey.png: grey of {bits} bits is read as shades') as said:
        planes.read(path, np.uint8, 'as train ids are', 'make it anew')
    assert '\n' not in str(said.value) and 'expected 8 bits or more' in str(said.value)
    path = write(tmp_path / 'palette.png', bits, row, grey=3)
    assert planes.read(path, np.uint8, 'x', 'y').tolist() == [list(row)]
    path = write(tmp_path / 'whole.png', 8, row)
    assert planes.read(path, np.uint8, 'x', 'y').tolist() == [list(row)]
