"""Numpy's files: all that numpy writes of numbers and texts, and nothing else."""

import io
import struct
import zipfile

import numpy as np
import pytest

from lrpjax._base.npy import open_npz, read_npy
from lrpjax._base.reading import Unreadable

ARRAYS = {
    "floats": np.arange(6.0).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "booleans": np.array([True, False]),
    "complex": np.arange(3) * 1j,
    "scalar": np.float32(7),
    "empty": np.zeros((0, 3), "int8"),
    "texts": np.array(["cat", "å"]),
    "bytes": np.array([b"cat"]),
}


def written(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def file(header, numbers=b"", version=1):
    """An .npy with any text for a header."""
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text + numbers


def described(descr="<f4", order="False", shape="(2, 3)"):
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_what_numpy_writes_is_read(array):
    found = read_npy(written(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape


REFUSED = {
    "no array": (b"PK\x03\x04", "does not begin"),
    "another version": (file(described(), version=9), "does not begin"),
    "objects": (written(np.array([1, "a"], object)), "no array of numbers"),
    "records": (written(np.zeros(2, "f4,f4")), "no array of numbers"),
    "a call": (file("__import__('os').system('touch touched')"), "no array of numbers"),
    "depth": (file("(" * 20_000), "no array of numbers"),
    "few numbers": (file(described(), bytes(20)), "more or fewer"),
    "many numbers": (file(described(), bytes(28)), "more or fewer"),
    "4 TB": (file(described(shape="(1000000000000,)"), bytes(8)), "more or fewer"),
    "less than none": (file(described(shape="(-2, -3)"), bytes(24)), "no array of numbers"),
    "axes": (file(described(shape=f"({'1, ' * 40})"), bytes(4)), "more than 32 axes"),
    "no text": (file(described("<U1", shape="(1,)"), b"\xff" * 4), "a text in it is damaged"),
    "a long header": (file(described())[:8] + b"\xff\xff", "header is too long"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_array_of_numbers_is_refused(data, words):
    with pytest.raises(Unreadable, match=words):
        read_npy(data)


def test_a_boolean_is_true_or_false():
    found = read_npy(file(described("|b1", shape="(3,)"), bytes([0, 1, 2])))
    assert found.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_one_array_at_a_time(save, tmp_path):
    save(tmp_path / "a.npz", x=np.arange(6.0).reshape(2, 3), y=np.uint8(3))
    with open_npz(tmp_path / "a.npz") as arrays:
        assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
            "x": ((2, 3), np.float64),
            "y": ((), np.uint8),
        }
        np.testing.assert_array_equal(arrays["x"].read(), np.arange(6.0).reshape(2, 3))


def test_more_arrays_than_anyone_has_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", *[np.uint8(0)] * 1001)
    with pytest.raises(Unreadable, match="more than 1,000 arrays"), open_npz(tmp_path / "a.npz"):
        raise AssertionError("opened")


def test_the_shape_is_checked_before_anything_is_unpacked(tmp_path):
    """A megabyte that would be a gigabyte: the directory says less than the array's header."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x.npy", file(described(shape="(1000000000,)"), bytes(10**6)))
    with pytest.raises(Unreadable, match="x is not of the size"), open_npz(tmp_path / "a.npz"):
        raise AssertionError("opened")
