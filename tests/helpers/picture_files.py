"""Files of pictures written byte by byte, as their formats say, without the library that reads."""

from __future__ import annotations

import struct
import zlib

import numpy as np

TYPES = {"u": 1, "i": 2, "f": 3}  # TIFF's SampleFormat


def png(pixels, *, colour, depth, transparent=b""):
    """A PNG of rows of samples. colour: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""
    height, width = pixels.shape[:2]
    big = pixels.astype(f">u{max(depth // 8, 1)}")
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if transparent:
        chunks.append((b"tRNS", transparent))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True)))


def _chunk(kind, data):
    whole = kind + data
    return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))


def tiff(pixels, *, photometric=1, order="<", orientation=1, extra=None):
    """An uncompressed TIFF of (H, W) or (H, W, C) in the pixels' own type.

    photometric: 0 where 0 is white, 1 where it is black, 2 RGB, 5 CMYK, 6 YCbCr, 8 CIE L*a*b*.
    extra: 1 or 2 for an alpha channel, premultiplied or not.
    """
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = pixels.dtype.itemsize * 8
    fields = {256: width, 257: height, 258: [bits] * samples, 259: 1, 262: photometric}
    fields |= {273: 8, 274: orientation, 277: samples, 278: height, 279: len(data)}
    fields |= {} if extra is None else {338: extra}
    fields |= {339: [TYPES[pixels.dtype.kind]] * samples}
    directory = 8 + len(data) + len(data) % 2
    beyond = directory + 2 + 12 * len(fields) + 4
    entries, tail = b"", b""
    for tag, value in sorted(fields.items()):
        numbers = value if isinstance(value, list) else [value]
        kind, code = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", beyond + len(tail))
            tail += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + place
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, directory)
    body = data + b"\0" * (len(data) % 2)
    count = struct.pack(f"{order}H", len(fields))
    return head + body + count + entries + struct.pack(f"{order}I", 0) + tail


def portable(pixels, white):
    """A PGM or PPM whose white is this number."""
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    height, width = pixels.shape[:2]
    data = pixels.astype(np.uint8 if white < 256 else ">u2").tobytes()
    return kind + f"\n{width} {height}\n{white}\n".encode() + data
