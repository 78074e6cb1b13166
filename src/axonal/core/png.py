"""PNG files from arrays with the standard library alone (PNG specification, W3C, 2003)."""

import struct
import zlib

import numpy as np

from .errors import InputError


def encode(pixels: np.ndarray) -> bytes:
    """A PNG file of `pixels`, uint8 [H, W] (grey) or [H, W, 3] (RGB).

    Raises:
        InputError: another shape or type, or no pixels.
    """
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or pixels.shape[2:] == (3,)) or not pixels.size:
        raise InputError(f"png: {pixels.dtype} {pixels.shape} is not uint8 [H, W] or [H, W, 3]")
    height, width = pixels.shape[:2]
    # Filter 0 ("none") stands before every line.
    lines = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """`images` [n, C, H, W] uint8 side by side, line by line, one black pixel between them.

    Returns:
        [H', W'] for C = 1, [H', W', 3] for C = 3; places left over stay black.

    Raises:
        InputError: another shape or type, no images, or no columns.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != np.uint8:
        raise InputError(f"png: {images.dtype} {images.shape} is not uint8 [n, 1|3, H, W]")
    count, channels, height, width = images.shape
    if count < 1 or columns < 1:
        raise InputError(f"png: {count} images in {columns} columns make no grid")
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, channels, height + 1, width + 1), np.uint8)
    sheet[:count, :, :height, :width] = images
    sheet = sheet.reshape(rows, columns, channels, height + 1, width + 1)
    sheet = sheet.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 1), -1, channels)[:-1, :-1]
    return sheet[..., 0] if channels == 1 else sheet


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
