"""Torch's files: every tensor that torch writes, and none of the code that a pickle can hold.

reference/make_torch_files.py made the files that are read, and says what is in them.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from lrpjax.models.checkpoint import open_checkpoint

FOLDER = Path(__file__).parents[1] / "reference"


def read(path):
    with open_checkpoint(path) as file:
        return {name: tensor.read() for name, tensor in file.tensors.items()}


def refused(words, path):
    """Wants a ValueError in one sentence with these words."""
    words = f"weight file .* is damaged or of another kind .*{words}.* again"
    with pytest.raises(ValueError, match=words) as caught:
        read(path)
    message = str(caught.value)
    assert caught.type is ValueError
    assert "\n" not in message and ". " not in message and message.endswith("."), message


# --- what torch writes ---------------------------------------------------------------------------

COUNTING = np.arange(24, dtype="float32").reshape(4, 6)
TENSORS = {
    "counting": COUNTING,
    "transposed": COUNTING.T,
    "sliced": COUNTING[1:, ::2],
    "expanded": np.tile(COUNTING[:1], (3, 1)),
    "parameter": COUNTING[2],
    "scalar": np.float32(7),
    "empty": np.zeros((0, 3), "float32"),
    "bool": np.array([True, False]),
} | {
    name: np.arange(6).reshape(2, 3).astype(name)
    for name in "float16 bfloat16 float32 float64 uint8 int16 int32 int64".split()
}
MODULE = {
    "0.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "0.bias": np.arange(2, dtype="float32"),
    "1.weight": np.arange(2, dtype="float32"),
    "1.bias": np.arange(2, dtype="float32"),
    "1.running_mean": np.arange(2, dtype="float32"),
    "1.running_var": np.arange(2, dtype="float32"),
    "1.num_batches_tracked": np.int64(0),
}
FILES = {"torch_tensors": TENSORS, "torch_wrapped": TENSORS, "torch_module": MODULE}


@pytest.mark.parametrize("legacy", ["", "_legacy"])
@pytest.mark.parametrize(("name", "wanted"), FILES.items(), ids=FILES)
def test_files_of_torch(name, wanted, legacy):
    found = read(FOLDER / f"{name}{legacy}.pth")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, strict=True)


# --- pickles written by hand ---------------------------------------------------------------------


def plain(value):
    """The part of a pickle that makes a value of Python's own."""
    return pickle.dumps(value, 2)[2:-1]


def named(path):
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(path, *parts):
    return named(path) + tuple_of(*parts) + b"R"


def dict_of(**parts):
    return b"}" + b"".join(plain(name) + part + b"s" for name, part in parts.items())


def storage(*, kind="storage", key="0", size=6, more=()):
    parts = (plain(kind), named("torch.FloatStorage"), plain(key), plain("cpu"), plain(size))
    return tuple_of(*parts, *map(plain, more)) + b"Q"


def tensor(size=(2, 3), strides=(3, 1), offset=0, held=None):
    rest = (plain(offset), plain(size), plain(strides), plain(False), plain(OrderedDict()))
    return call("torch._utils._rebuild_tensor_v2", held or storage(), *rest)


def whole(content):
    return b"\x80\x02" + content + b"."


def in_zip(path, content, *, data=bytes(24), compression=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/data/0", data)
        for name, value in entries.items():
            archive.writestr(f"net/{name}", value)
    return path


def test_what_is_written_by_hand_is_read(tmp_path):
    numbers = np.arange(6, dtype="float32")
    content = whole(dict_of(w=tensor()))
    path = in_zip(tmp_path / "net.pth", content, data=numbers.tobytes())
    np.testing.assert_array_equal(read(path)["w"], numbers.reshape(2, 3), strict=True)


TOUCH = plain("touch touched")
CALLS = {
    "os.system": (call("os.system", TOUCH), r"asks for os\.system, and only a state dict"),
    "eval": (dict_of(w=call("builtins.eval", plain("open('touched', 'w')"))), r"builtins\.eval"),
    "a class": (call("pathlib.Path", TOUCH), r"pathlib\.Path"),
    "torch.load": (call("torch.serialization.load", TOUCH), r"torch\.serialization\.load"),
    "a storage's bytes": (call("torch.storage._load_from_bytes", TOUCH), "_load_from_bytes"),
    "a whole model": (named("torchvision.models.vgg.VGG"), r"torchvision\.models\.vgg\.VGG"),
    "below a tensor": (dict_of(w=tensor(held=call("os.system", TOUCH))), r"os\.system"),
    "another opcode": (b"(" + TOUCH + b"ios\nsystem\n", "uses INST os system"),
    "a dtype": (
        call("torch.float32", plain(1)),
        r"calls torch\.float32, which is nothing to be called",
    ),
}
REBUILD = named("torch._utils._rebuild_tensor_v2")
ATTACKS = {
    "new attributes": (REBUILD + plain({"__call__": 1}) + b"b", "changes a Name"),
    "new slots": (REBUILD + plain((None, {"__call__": 1})) + b"b", "changes a Name"),
    "a plain thing": (b"}" + plain({"get": 1}) + b"b", "changes a dict"),
    "attributes without names": (
        call("collections.OrderedDict") + plain(3) + b"b",
        "without names",
    ),
    "long text": (b"X\xff\xff\xff\x7fabc", "ValueError.*expected"),
    "a key of tuples": (b"}" + b")" + 60 * b"q\x00h\x00\x86" + b"Ns", "has a tuple for a key"),
    "a large number": (b"}" + plain(2**40) + b"Ns", "has a int for a key"),
    "depth": (dict_of(w=b")" + 40 * b"\x85"), "nested on more than 32 levels"),
    "length": (b"N" * (10**6 + 1), "more than 1,000,000 instructions"),
    "nothing to take": (b"s", "takes more than it made"),
    "nothing marked": (b"}u", "takes more than it made"),
    "nothing kept": (b"h\x07", "takes what it never kept"),
    "two things": (b"}}", "leaves more than one thing"),
    "half a pair": (b"}(" + plain("w") + b"u", "a key without a value"),
    "a text that is filled": (plain("w") + b"Na", "fills a str"),
    "no pairs": (call("collections.OrderedDict", plain(["abc"])), "not made of pairs"),
    "a call of a text": (plain("os.system") + b")R", "calls a str, which is nothing"),
    "a name of numbers": (plain(1) + plain(2) + b"\x93", "something without a name"),
}
TENSORS_OF_NOTHING = {
    "beyond the storage": (dict_of(w=tensor(offset=1)), "reaches beyond its storage"),
    "strides beyond": (dict_of(w=tensor(strides=(4, 1))), "reaches beyond its storage"),
    "backwards": (dict_of(w=tensor(strides=(-3, 1), offset=3)), "no list of sizes"),
    "a fraction": (dict_of(w=tensor(size=(2, 1.5))), "no list of sizes"),
    "strides missing": (dict_of(w=tensor(strides=(3,))), "no stride for each axis"),
    "more axes": (dict_of(w=tensor(size=(1,) * 40, strides=(1,) * 40)), "or more than 32"),
    "one number many times": (dict_of(w=tensor(size=(9, 9), strides=(0, 0))), "more numbers than"),
    "far apart": (
        dict_of(w=tensor(size=(2,), strides=(10**8,), held=storage(size=10**9))),
        "lie too far apart",
    ),
    "no storage": (dict_of(w=tensor(held=plain("123456"))), "has no storage"),
    "another kind": (dict_of(w=tensor(held=storage(kind="module"))), "unknown kind"),
    "a part": (dict_of(w=tensor(held=storage(more=[("1", 0, 3)]))), "part of another"),
    "no numbers": (dict_of(w=tensor(held=storage(key="1"))), "storage 1 is missing"),
    "fewer numbers": (dict_of(w=tensor(held=storage(size=9))), "0 .*not of the size"),
    "two sizes": (dict_of(v=tensor(), w=tensor(held=storage(size=9))), "in two ways"),
}
NO_STATE_DICTS = {
    "a list": (plain([1, 2]), "holds a list"),
    "no tensor": (dict_of(w=tensor(), epoch=plain(3)), "no tensor under 'epoch'"),
    "a storage": (dict_of(w=storage()), "no tensor under 'w'"),
    "no name": (b"}" + plain(3) + tensor() + b"s", "no tensor under 3"),
}
REFUSED = CALLS | ATTACKS | TENSORS_OF_NOTHING | NO_STATE_DICTS


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_pickles_that_are_refused(content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(words, in_zip(tmp_path / "net.pth", whole(content)))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("content", "words"), ATTACKS.values(), ids=ATTACKS)
def test_a_refused_pickle_leaves_nothing_behind(content, words, tmp_path):
    refused(words, in_zip(tmp_path / "bad.pth", whole(content)))
    assert "w" in read(in_zip(tmp_path / "good.pth", whole(dict_of(w=tensor()))))


ARCHIVES = {
    "compressed": ({"compression": zipfile.ZIP_DEFLATED}, "does not compress"),
    "big-endian": ({"byteorder": b"big"}, "big-endian"),
    "short": ({"data": bytes(20)}, "not of the size"),
    "long": ({"data": bytes(28)}, "not of the size"),
}


@pytest.mark.parametrize(("options", "words"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_are_refused(options, words, tmp_path):
    refused(words, in_zip(tmp_path / "net.pth", whole(dict_of(w=tensor())), **options))


def lying(path, held, **sizes):
    """A file whose directory says other sizes of the storage than there are."""
    data = bytearray(in_zip(path, whole(dict_of(w=held))).read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    for at, size in ((20, sizes["packed"]), (24, sizes["size"])):
        data[entry + at : entry + at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def test_a_directory_that_promises_more_numbers_gives_none_of_the_memory_beside(tmp_path):
    """A storage of 6 numbers, of which the directory and the pickle say it has a million."""
    million = tensor(size=(10**6,), strides=(1,), held=storage(size=10**6))
    for sizes in ({"packed": 24, "size": 4 * 10**6}, {"packed": 4 * 10**6, "size": 4 * 10**6}):
        path = lying(tmp_path / "net.pth", million, **sizes)
        refused("not of the size|end is missing", path)
    refused("0 is missing or not of the size", in_zip(path, whole(dict_of(w=million))))


def test_an_expanded_tensor_reads_its_own_numbers_alone(tmp_path):
    """The numbers of the storage beside it are not held: here of one in a thousand."""
    numbers = np.arange(6000, dtype="float32")
    view = tensor(size=(1, 6), strides=(0, 1), offset=600, held=storage(size=6000))
    path = in_zip(tmp_path / "net.pth", whole(dict_of(w=view)), data=numbers.tobytes())
    found = read(path)["w"]
    np.testing.assert_array_equal(found, numbers[None, 600:606])
    assert found.base.nbytes == 24


NUMBERS = (6).to_bytes(8, "little") + bytes(24)
BEHIND = whole(plain(["0"])) + NUMBERS
LEGACY = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
OLD = {  # the three pickles in front, the fourth, and what is behind it
    "os.system": (LEGACY, call("os.system", TOUCH), BEHIND, r"os\.system"),
    "os.system first": ([], call("os.system", TOUCH), BEHIND, r"os\.system"),
    "no torch file": ([1, 1001, LEGACY[2]], dict_of(), BEHIND, "does not begin as"),
    "another version": ([LEGACY[0], 1002, LEGACY[2]], dict_of(), BEHIND, "does not begin as"),
    "big-endian": ([*LEGACY[:2], {"little_endian": False}], dict_of(), BEHIND, "big-endian"),
    "cut": (LEGACY, dict_of(w=tensor()), BEHIND[:-1], "end is missing"),
    "no numbers": (LEGACY, dict_of(w=tensor()), whole(plain([])), "storages of its tensors"),
    "fewer numbers": (LEGACY, dict_of(w=tensor(held=storage(size=9))), BEHIND, "not of the size"),
    "no sizes": (LEGACY, dict_of(w=tensor()), whole(plain(3)), "does not name the storages"),
    "a storage twice": (LEGACY, dict_of(w=tensor()), whole(plain(["0", "0"])), "each once"),
    "names that double": (
        LEGACY,
        dict_of(w=tensor()),
        whole(b"](" + b")" + 25 * b"q\x00h\x00\x86" + b"e"),
        "does not name the storages",
    ),
}


@pytest.mark.parametrize(("front", "content", "behind", "words"), OLD.values(), ids=OLD)
def test_files_of_old_versions_that_are_refused(
    front, content, behind, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    parts = [*(pickle.dumps(value, 2) for value in front), whole(content), behind]
    (tmp_path / "net.pth").write_bytes(b"".join(parts))
    refused(words, tmp_path / "net.pth")
    assert not (tmp_path / "touched").exists()


# --- damaged files -------------------------------------------------------------------------------

BOTH = ["torch_wrapped", "torch_wrapped_legacy"]


@pytest.mark.parametrize("name", BOTH)
def test_cut_files_are_refused_wherever_they_end(name, tmp_path):
    content = (FOLDER / f"{name}.pth").read_bytes()
    for end in range(0, len(content), 29):
        (tmp_path / "net.pth").write_bytes(content[:end])
        refused("", tmp_path / "net.pth")


@pytest.mark.parametrize("name", BOTH)
def test_changed_bytes_change_numbers_or_are_refused(name, tmp_path):
    content = (FOLDER / f"{name}.pth").read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        changed[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
        (tmp_path / "net.pth").write_bytes(changed)
        try:
            found = read(tmp_path / "net.pth")
        except ValueError as error:
            assert "net.pth" in str(error)
        else:
            assert len(found) == len(TENSORS)
