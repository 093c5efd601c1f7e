"""Damage to files, drawn from a random number generator: of bytes, and of what the bytes mean.

A mutation that knows the structure repairs what would give it away at once: the checksums of a zip
and of a tar, the length of a header, the sizes in a directory (or it makes these lie).
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickletools
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    24,
    127,
    128,
    255,
    256,
    65535,
    2**16,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
LONG = (*NUMBERS, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
NAMES = (
    "os system", "builtins eval", "numpy dtype", "numpy ndarray", "collections OrderedDict",
    "numpy.core.multiarray _reconstruct", "numpy.core.multiarray scalar", "_codecs encode",
    "torch FloatStorage", "torch BoolStorage", "torch float32", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter", "numpy._core.numeric _frombuffer",
)  # fmt: skip
SNIPPETS = (
    *(bytes([byte]) for byte in b"N\x88)]}(t\x85\x86\x87RbQ02suea\x94"),
    b"K\x05", b"h\x01", b"q\x05", b"J\xff\xff\xff\xff", b"U\x03abc", b"X\x01\x00\x00\x00w",
    b"B\x02\x00\x00\x00ab", b"\x8a\x01\x07", b"G?\xf0\x00\x00\x00\x00\x00\x00",
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb",
    b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R",
)  # fmt: skip
Draw = random.Random


def bytes_of(draw: Draw, data: bytes) -> bytes:
    """Without any knowledge: bits, bytes, numbers, what is cut, doubled, or moved."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        at = draw.randrange(len(out))
        size = min(draw.choice((1, 2, 4, 8, 64, 512)), len(out) - at)
        match draw.randrange(7):
            case 0:
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                out[at] = draw.randrange(256)
            case 2:
                number = draw.choice(LONG).to_bytes(8, draw.choice(("little", "big")))
                out[at : at + size] = number[:size]
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size]
            case 5:
                to = draw.randrange(len(out))
                out[to : to + size] = out[at : at + size]
            case 6 if draw.random() < 0.3:
                del out[at:]
    return bytes(out)


def pickled(draw: Draw, data: bytes) -> bytes:
    """One or more instructions of a pickle left out, doubled, exchanged, added, or with another
    number, name or length."""
    try:
        starts = [at for _, _, at in pickletools.genops(data)]
    except Exception:
        return bytes_of(draw, data)
    end = data.index(b".", starts[-1]) + 1
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(1, len(parts))
        match draw.randrange(7):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[at])
            case 2:
                to = draw.randrange(1, len(parts))
                parts[at], parts[to] = parts[to], parts[at]
            case 3:
                parts.insert(at, draw.choice(SNIPPETS))
            case 4:
                parts[at] = draw.choice(SNIPPETS)
            case 5:
                numbers = [i for i, p in enumerate(parts) if p[:1] in b"KMJ"]
                if numbers:
                    parts[draw.choice(numbers)] = b"J" + draw.choice(NUMBERS).to_bytes(4, "little")
            case 6:
                names = [i for i, p in enumerate(parts) if p[:1] == b"c"]
                if names:
                    module, _, name = draw.choice(NAMES).partition(" ")
                    parts[draw.choice(names)] = f"c{module}\n{name}\n".encode()
        if len(parts) < 2:
            break
    return b"".join(parts) + data[end:]


def legacy(draw: Draw, data: bytes) -> bytes:
    """One of the five pickles of an old torch file, or a size behind them."""
    ends, stream = [0], io.BytesIO(data)
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    if draw.random() < 0.15:
        return data[: ends[-1]] + bytes_of(draw, data[ends[-1] :])
    which = draw.choice((0, 1, 2, 3, 3, 3, 3, 3, 3, 4))
    a, b = ends[which], ends[which + 1]
    return data[:a] + pickled(draw, data[a:b]) + data[b:]


def npy(draw: Draw, data: bytes) -> bytes:
    """A header of numpy's with another type, order, shape, or length."""
    size = int.from_bytes(data[8:10], "little")
    header, numbers = data[10 : 10 + size].decode("latin-1"), data[10 + size :]
    match draw.randrange(5):
        case 0:
            kinds = (
                "<f4",
                ">i8",
                "|O",
                "<U2",
                "|b1",
                "<f2",
                "|V8",
                "<M8[s]",
                "[('a','<f4')]",
                "<U0",
                "f4,f4",
            )
            header = re.sub(r"'descr': '[^']*'", f"'descr': '{draw.choice(kinds)}'", header)
        case 1:
            shape = tuple(draw.choice(LONG) for _ in range(draw.randrange(4)))
            header = re.sub(r"\([\d, ]*\)", str(shape), header)
        case 2:
            header = header.replace("False", "True")
        case 3:
            header = bytes_of(draw, header.encode()).decode("latin-1")
        case 4:
            numbers = bytes_of(draw, numbers)
    text = header.encode("latin-1")
    length = len(text) if draw.random() < 0.9 else draw.choice(NUMBERS) % 2**16
    return data[:8] + struct.pack("<H", length % 2**16) + text + numbers


FIELDS = ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4))


def zipped(draw: Draw, data: bytes, inside: Callable[[Draw, str, bytes], bytes]) -> bytes:
    """An entry changed by `inside`, with its checksum right; entries exchanged, doubled or left
    out; or fields of the directory that lie."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[i.filename, archive.read(i), i.compress_type] for i in archive.infolist()]
    chosen = draw.random()
    if chosen < 0.6:
        entry = draw.choice(entries)
        entry[1] = inside(draw, entry[0], entry[1])
    elif chosen < 0.7:
        entry = draw.choice(entries)
        match draw.randrange(4):
            case 0:
                entries.remove(entry)
            case 1:
                entries.append(list(entry))
            case 2:
                entry[1] = draw.choice(entries)[1]
            case 3:
                entry[2] = draw.choice((0, 8, 12, 14))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content, kind in entries:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    out = bytearray(stream.getvalue())
    if chosen >= 0.7 and b"PK\x01\x02" in out:
        places = [m.start() for m in re.finditer(b"PK\x01\x02", bytes(out))]
        for _ in range(draw.choice((1, 1, 2))):
            at, width = draw.choice(FIELDS)
            new = draw.choice(NUMBERS) if draw.random() < 0.7 else draw.randrange(len(out))
            place = draw.choice(places) + at
            out[place : place + width] = (new % 256**width).to_bytes(width, "little")
    return bytes(out)


def safetensors(draw: Draw, data: bytes) -> bytes:
    """The header as JSON, with its length right."""
    size = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    if draw.random() < 0.3:  # what is still in order
        header = dict(draw.sample(list(header.items()), len(header)))
        name = draw.choice([name for name in header if name != "__metadata__"])
        tensor = header.pop(name)
        tensor["shape"] = draw.sample([*tensor["shape"], 1], len(tensor["shape"]) + 1)
        tensor["dtype"] = {"F32": "I32", "F16": "BF16", "I64": "F64"}.get(tensor["dtype"], "I8")
        header[draw.choice((name, "å.\n", "x" * 300, ""))] = tensor
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + draw.randbytes(len(numbers))
    if draw.random() < 0.6:
        text = json.dumps(tree(draw, header)).encode()
    else:
        other = lambda found: str(draw.choice(LONG)) if draw.random() < 0.2 else found[0]
        text = re.sub(r"\d+", other, json.dumps(header)).encode()
    length = len(text) if draw.random() < 0.95 else draw.choice(LONG) % 2**63
    return struct.pack("<Q", length) + text + numbers


def tree(draw: Draw, value: object) -> object:
    """Nested dictionaries and lists with something in them left out, renamed or of another kind."""
    plain = (
        None,
        True,
        0,
        -1,
        1.5,
        10**30,
        "",
        "x" * 50,
        [],
        {},
        [[[]]],
        {"npy": "AAAA"},
        "NaN",
        "\ud800",
    )
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        copied = dict(value)
        match draw.randrange(6):
            case 0:
                del copied[key]
            case 1:
                copied[key + "x"] = copied.pop(key)
            case _:
                copied[key] = tree(draw, value[key])
        return copied
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        changed = [*value]
        if draw.random() < 0.2:
            del changed[at]
        else:
            changed[at] = tree(draw, value[at])
        return changed
    if isinstance(value, str) and value.startswith("k05VTVBZ") and draw.random() < 0.8:  # an .npy
        return base64.b64encode(npy(draw, base64.b64decode(value))).decode()
    return draw.choice(plain)


def as_json(draw: Draw, data: bytes) -> bytes:
    if draw.random() < 0.05:
        return b"[" * draw.choice((10, 10**4, 10**6)) + data
    return json.dumps(tree(draw, json.loads(data))).encode()


BLOCKS = rb"\x89HDF\r\n\x1a\n|TREE|SNOD|HEAP|GCOL|OHDR|FRHP|BTHD|FADB|\x01\x00..\x01\x00\x00\x00"
SIGNS = re.compile(BLOCKS, re.DOTALL)


def hdf5(draw: Draw, data: bytes) -> bytes:
    """Fields near the beginning of a block: sizes, counts and addresses, which may also become
    those of another block."""
    out = bytearray(data)
    places = [m.start() for m in SIGNS.finditer(data)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.choice(places) + draw.choice(
            (4, 5, 6, 7, 8, 12, 16, 24, 32, 40, 48, 64, 96, draw.randrange(256))
        )
        width = draw.choice((1, 2, 4, 8))
        new = draw.choice((draw.choice(LONG), draw.choice(places), draw.randrange(len(data))))
        out[at : at + width] = (new % 256**width).to_bytes(width, "little")
    return bytes(out[: len(data)])


def tar(draw: Draw, data: bytes) -> bytes:
    """A batch's pickle, or a header with its checksum right, packed again."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            content = archive.extractfile(info)
            members.append(
                [bytearray(info.tobuf(tarfile.GNU_FORMAT)), content.read() if content else b""]
            )
    member = draw.choice(members)
    if draw.random() < 0.75:
        member[1] = pickled(draw, member[1])
        member[0][124:136] = b"%011o\0" % len(member[1])
    else:
        at, width = draw.choice(((0, 100), (124, 12), (156, 1), (157, 20)))
        new = draw.choice(
            (b"%011o\0" % draw.choice(NUMBERS), draw.randbytes(width), b"\x80" + draw.randbytes(11))
        )
        member[0][at : at + width] = new[:width].ljust(width, b"\0")
    member[0][148:156] = b" " * 8
    member[0][148:156] = b"%06o\0 " % sum(member[0])
    padded = b"".join(bytes(h) + c + bytes(-len(c) % 512) for h, c in members) + bytes(1024)
    return gzip.compress(padded, 1) if data[:2] == b"\x1f\x8b" else padded
