"""Zip archives from outside, whose directory is believed only where the bytes agree with it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import BinaryIO

from .reading import Unreadable

DIRECTORY = 4 * 2**20  # bytes; an entry of it takes less than 100, and ten times that when read
EXPANSION = 1032  # of deflate at its best: bytes out for each byte in
UNREAD = 0x1 | 0x20 | 0x40  # flags of entries that are encrypted, or patches of others
FOLDER = 0x10  # among the attributes of an entry
UTF8 = 0x800
LOCAL = struct.Struct("<4s22x2H")  # what stands in front of an entry: magic, lengths of two texts


class Archive:
    """An archive whose entries, stored or deflated, lie apart and are of the sizes they declare.

    entries: by name. Raises Unreadable for any other, and zipfile.BadZipFile for what is none.
    """

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        listed = zipfile.ZipFile(_Bounded(stream)).infolist()
        self.entries = {info.filename: info for info in listed}
        if len(self.entries) != len(listed):
            raise Unreadable("its archive names an entry twice")
        self.starts = {name: self._start(info) for name, info in self.entries.items()}
        self._sound: set[str] = set()
        end = 0
        for info in sorted(listed, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise Unreadable("entries of its archive overlap")
            end = self.starts[info.filename] + info.compress_size
        if end > stream.seek(0, io.SEEK_END):
            raise Unreadable("its end is missing")

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where the bytes of an entry begin, once what is said of it is possible."""
        least = {
            zipfile.ZIP_STORED: info.file_size,
            zipfile.ZIP_DEFLATED: info.file_size // EXPANSION,
        }.get(info.compress_type)
        if info.external_attr & FOLDER or info.is_dir():  # of which others read no bytes
            raise Unreadable(f"the entry {info.filename} is a folder")
        if least is None or info.flag_bits & UNREAD:
            raise Unreadable(f"the entry {info.filename} is encrypted, or compressed unusually")
        stored = info.compress_type == zipfile.ZIP_STORED
        if info.compress_size < least or (stored and info.compress_size > least):
            raise Unreadable(f"the entry {info.filename} is not of the size it should be")
        self.stream.seek(info.header_offset)
        head = self.stream.read(LOCAL.size)
        if len(head) < LOCAL.size or head[:4] != b"PK\x03\x04":
            raise Unreadable(f"the entry {info.filename} is not where the directory says")
        _, name, extra = LOCAL.unpack(head)
        if self.stream.read(name) != _encoded(info):
            raise Unreadable(f"the entry {info.filename} has another name in the directory")
        return info.header_offset + LOCAL.size + name + extra

    def read(self, name: str) -> bytes:
        """The whole entry, checked by its size and checksum."""
        info = self.entries[name]
        data = self.beginning(name, info.file_size + 1)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise Unreadable(f"the entry {name} is damaged")
        return data

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes of a stored entry; the whole is checked, once, without being held."""
        if name not in self._sound:
            self.stream.seek(self.starts[name])
            left, checksum = self.entries[name].compress_size, 0
            while left:
                data = self.stream.read(min(left, 2**20))
                if not data:
                    raise Unreadable("its end is missing")
                left, checksum = left - len(data), zlib.crc32(data, checksum)
            if checksum != self.entries[name].CRC:
                raise Unreadable(f"the entry {name} is damaged")
            self._sound.add(name)
        self.stream.seek(self.starts[name] + start)
        return self.stream.read(stop - start)

    def beginning(self, name: str, size: int) -> bytes:
        """At most the first `size` bytes of an entry; never more are unpacked."""
        info = self.entries[name]
        self.stream.seek(self.starts[name])
        if info.compress_type == zipfile.ZIP_STORED:
            return self.stream.read(min(size, info.compress_size))
        packed = self.stream.read(min(2 * size + 1024, info.compress_size))
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)


def _encoded(info: zipfile.ZipInfo) -> bytes:
    """An entry's name as the archive has it."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8 else "cp437")


class _Bounded(io.RawIOBase):
    """A stream for zipfile, which reads a directory of any size at once."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def read(self, size: int = -1) -> bytes:
        found = self.stream.read(DIRECTORY + 1 if size < 0 else min(size, DIRECTORY + 1))
        if len(found) > DIRECTORY:
            raise Unreadable("the directory of its archive is too long")
        return found
