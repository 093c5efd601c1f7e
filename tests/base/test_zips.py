"""Zip archives whose directory lies are refused, by what the bytes are."""

import io
import struct
import tracemalloc
import zipfile

import pytest

from lrpjax._base.reading import Unreadable
from lrpjax._base.zips import Archive

CONTENT = {"a": b"numbers " * 8, "b": bytes(range(256))}
# Where the directory's entry has what, and in how many bytes.
FIELDS = {"flags": (8, "H"), "method": (10, "H"), "crc": (16, "I"), "packed": (20, "I")}
FIELDS |= {"size": (24, "I"), "attributes": (38, "I"), "start": (42, "I")}


def archive(kind=zipfile.ZIP_STORED, content=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as made:
        for name, data in content or CONTENT.items():
            made.writestr(name, data)
    return stream.getvalue()


def changed(data, number=0, **fields):
    """The archive with other fields in the directory's entry of that number."""
    data, place = bytearray(data), -1
    for _ in range(number + 1):
        place = data.index(b"PK\x01\x02", place + 1)
    for name, value in fields.items():
        at, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", data, place + at, value)
    return bytes(data)


def read(data):
    found = Archive(io.BytesIO(data))
    return {name: found.read(name) for name in found.entries}


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_zipfile_writes_is_read(kind):
    assert read(archive(kind)) == CONTENT
    assert read(archive(kind, [("empty", b""), ("å", b"1")])) == {"empty": b"", "å": b"1"}


PLAIN, PACKED = archive(), archive(zipfile.ZIP_DEFLATED)
LIES = {
    "more numbers than bytes": (changed(PLAIN, size=4_000_000), "a is not of the size"),
    "fewer numbers than bytes": (changed(PLAIN, size=8), "a is not of the size"),
    "both sizes": (changed(PLAIN, number=1, size=4000, packed=4000), "end is missing"),
    "one over the other": (changed(PLAIN, packed=100, size=100), "overlap"),
    "one in the other's place": (changed(PLAIN, number=1, start=0), "b has another name"),
    "no entry there": (changed(PLAIN, number=1, start=7), "b is not where"),
    "packed beyond deflate": (changed(PACKED, size=10**6), "a is not of the size"),
    "packed more than it says": (changed(PACKED, size=63), "a is damaged"),
    "packed less than it says": (changed(PACKED, size=65), "a is damaged"),
    "checksum": (changed(PLAIN, crc=1), "a is damaged"),
    "a folder": (changed(PLAIN, attributes=0x10), "a is a folder"),
    "encrypted": (changed(PLAIN, flags=1), "a is encrypted"),
    "another compression": (archive(zipfile.ZIP_BZIP2), "compressed unusually"),
}


@pytest.mark.parametrize(("data", "words"), LIES.values(), ids=LIES)
def test_a_directory_that_lies_is_refused(data, words):
    with pytest.raises(Unreadable, match=words):
        read(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(Unreadable, match="an entry twice"):
        read(archive(content=[("a", b"1"), ("a", b"2")]))


def test_a_bomb_is_not_unpacked():
    """200 MB that declare to be one: no more is unpacked than was declared."""
    bomb = changed(archive(zipfile.ZIP_DEFLATED, [("a", bytes(2 * 10**8))]), size=10**6)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="a is damaged"):
            read(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_a_directory_of_any_length_is_not_read():
    data = archive() + bytes(2 * 10**7)
    end = bytearray(archive()[-22:])
    struct.pack_into("<II", end, 12, 2 * 10**7, len(archive()))
    with pytest.raises(Unreadable, match="directory of its archive is too long"):
        read(data + bytes(end))
