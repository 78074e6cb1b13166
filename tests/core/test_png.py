import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.png import encode, grid


def decode(data):
    """Just enough of a PNG reader for filter 0; checks every CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8 and rest == [0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, -1)
    assert (lines[:, 0] == 0).all()
    shape = (height, width) if colour == 0 else (height, width, 3)
    return lines[:, 1:].reshape(shape)


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), rgb=st.booleans(), seed=st.integers(0, 99)
)
def test_round_trip(height, width, rgb, seed):
    shape = (height, width, 3) if rgb else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    assert (decode(encode(pixels)) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_places_images(channels):
    images = np.arange(5 * channels, dtype=np.uint8).reshape(5, channels, 1, 1) + 1
    images = np.broadcast_to(images, (5, channels, 4, 6))
    sheet = grid(images, 2)
    assert sheet.shape[:2] == (3 * 5 - 1, 2 * 7 - 1)
    assert (sheet[5:9, 7:13] == images[3].transpose(1, 2, 0).squeeze()).all()
    assert not sheet[4].any() and not sheet[:, 6].any() and not sheet[10:, 7:].any()
    assert encode(sheet)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((0, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)]
)
def test_encode_refuses(pixels):
    with pytest.raises(InputError):
        encode(pixels)


@pytest.mark.parametrize(
    ("shape", "columns"), [((0, 1, 2, 2), 2), ((2, 1, 2, 2), 0), ((2, 2, 2, 2), 1), ((2, 2), 1)]
)
def test_grid_refuses(shape, columns):
    with pytest.raises(InputError):
        grid(np.zeros(shape, np.uint8), columns)
