"""The reader of pickles: every protocol that Python writes, with numpy's arrays in each."""

import codecs
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from lrpjax._base.reading import Unreadable
from lrpjax.models.pickled import Ordered, unpickled
from lrpjax.models.pickled_arrays import read_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SHARED = [1, 2]
VALUES = [
    None, True, False, 0, 255, 65535, 2**31, -5, 2**80, 1.5, "a\nå", b"\x00\xff", bytearray(b"ab"),
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, [2]], {}, {"a": 1}, {"a": 1, "b": {}},
    [SHARED, SHARED], list(range(2000)), "x" * 300, OrderedDict(a=1, b=[2]),
]  # fmt: skip
TABLE = {"_codecs.encode": codecs.encode, "collections.OrderedDict": Ordered}
TABLE |= {f"{module}.bytearray": bytes for module in ("builtins", "__builtin__")}
TABLE |= {f"{module}.bytes": bytes for module in ("builtins", "__builtin__")}


def plain(content, **options):
    return unpickled(io.BytesIO(content), TABLE, only="values", text=bytes, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_come_back_from_every_protocol(protocol):
    for value in VALUES:
        found = plain(pickle.dumps(value, protocol))
        assert found == value
        assert type(found) in (type(value), Ordered, bytes)


def test_pickles_behind_each_other_are_read_one_at_a_time():
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps("b") + b"numbers")
    read = lambda: unpickled(stream, {}, only="values", text=bytes)
    assert (read(), read(), stream.read()) == ([1], "b", b"numbers")


ARRAYS = {
    "bytes": np.arange(6, dtype="uint8").reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "half": np.arange(3, dtype="float16"),
    "booleans": np.array([True, False]),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), "int8"),
}


@pytest.mark.parametrize("old", [False, True], ids=["numpy 2", "numpy 1"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back_from_every_protocol(protocol, old):
    content = pickle.dumps(ARRAYS | {"labels": [1, 2]}, protocol)
    if old and protocol < 4:  # from then on the length of a name stands before it
        content = content.replace(b"numpy._core", b"numpy.core")
    found = read_arrays(io.BytesIO(content))
    assert found.pop("labels") == [1, 2]
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("=")


# --- what Python 2 wrote -------------------------------------------------------------------------


def python2(
    data, *, code=b"u1", state=b"(K\x03U\x01|q\x0dNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
):
    """The instructions of a batch of CIFAR-10's archive, which Python 2 and numpy 1 wrote."""
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
        b"U\x06labelsq\x04]q\x05(K\x06K\x09eU\x04dataq\x06"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09"
        b"U\x01bq\x0a\x87Rq\x0b(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x0c"
        b"U" + bytes([len(code)]) + code + b"K\x00K\x01\x87Rq\x0d"
        + state + b"b\x89T" + len(data).to_bytes(4, "little") + data + b"tbu."
    )  # fmt: skip


def test_the_archives_own_instructions():
    content = python2(bytes(range(6)))
    assert pickle.loads(content, encoding="bytes")[b"labels"] == [6, 9]  # Python's own reader
    found = read_arrays(io.BytesIO(content))
    np.testing.assert_array_equal(found["data"], np.arange(6, dtype="uint8").reshape(2, 3))
    assert found["labels"] == [6, 9] and found["batch_label"] == b"training batch 1 of 5"


def dtype_state(*, version=b"K\x03", order=b"U\x01|", rest=b"NNN", ends=b"K\x00"):
    last = b"J\xff\xff\xff\xff" * 2
    return b"(" + version + order + rest + last + ends + b"t"


POINTER = {
    "objects": ({"code": b"O8"}, "of the type O8, which is no number"),
    "records": ({"code": b"V8"}, "of the type V8"),
    "texts": ({"code": b"S3"}, "of the type S3"),
    "two bytes of one": ({"code": b"u2"}, "more or fewer numbers than its shape"),
    "flags": ({"state": dtype_state(ends=b"K?")}, "no plain one"),
    "fields": ({"state": dtype_state(rest=b"N)}")}, "no plain one"),
    "a subtype": ({"state": dtype_state(rest=b"K\x01NN")}, "no plain one"),
    "another version": ({"state": dtype_state(version=b"K\x04")}, "no plain one"),
    "another order": ({"state": dtype_state(order=b"U\x01?")}, "no plain one"),
    "a short state": ({"state": b"K\x03\x85"}, "no plain one"),
    "no state": ({"state": b"K\x03"}, "no plain one"),
}


@pytest.mark.parametrize(("options", "words"), POINTER.values(), ids=POINTER)
def test_bytes_of_a_file_never_become_pointers(options, words):
    """What makes numpy take numbers of the file for addresses, or for fields beyond the array."""
    with pytest.raises(Unreadable, match=words):
        read_arrays(io.BytesIO(python2(bytes(6), **options)))


ARRAY_STATES = {
    "no bytes": ((1, (3,), "d", False, [1, 2, 3]), "no shape, type and numbers"),
    "a list for a shape": ((1, [3], "d", False, b"abc"), "no shape, type and numbers"),
    "less than none": ((1, (-3, -1), "d", False, b"abc"), "no list of sizes"),
    "booleans": ((1, (True, 3), "d", False, b"abc"), "no list of sizes"),
    "more": ((1, (2**40, 2**40), "d", False, b"abc"), "more or fewer numbers"),
    "five": ((1, (3,), "d", False), "no shape, type and numbers"),
}


@pytest.mark.parametrize(("state", "words"), ARRAY_STATES.values(), ids=ARRAY_STATES)
def test_an_array_is_filled_with_its_numbers_alone(state, words):
    part = lambda value: pickle.dumps(value, 2)[2:-1]
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    parts = b"".join(kind if value == "d" else part(value) for value in state)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    with pytest.raises(Unreadable, match=words):
        read_arrays(io.BytesIO(b"\x80\x02}U\x04data" + made + b"(" + parts + b"tbs."))


def test_a_few_instructions_do_not_ask_for_all_again_and_again():
    """What was kept is given to calls as often as one likes, each of which goes through it."""
    text = b"X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\x00"
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with pytest.raises(Unreadable, match="uses what it holds too often"):
        plain(b"\x80\x02" + text + again * 100 + b".")


def test_what_is_no_dictionary_of_arrays_is_refused():
    with pytest.raises(Unreadable, match="holds a list, and no arrays"):
        read_arrays(io.BytesIO(pickle.dumps([1])))
    with pytest.raises(
        Unreadable,
        match=r"asks for __builtin__\.print|asks for builtins\.print, and only a dictionary of",
    ):
        read_arrays(io.BytesIO(pickle.dumps(print)))
