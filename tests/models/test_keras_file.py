"""Keras' files from outside: nothing of them leads elsewhere, and no damage ends this process."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from lrpjax.models import hdf5
from lrpjax.models.checkpoint import open_checkpoint

NUMBERS = np.arange(12, dtype="f4").reshape(3, 4)


def read(path):
    with open_checkpoint(path) as file:
        return {name: tensor.read() for name, tensor in file.tensors.items()}


def refused(words, path):
    with pytest.raises(ValueError, match=words) as caught:
        read(path)
    message = str(caught.value)
    assert caught.type is ValueError and path.name in message
    assert "\n" not in message and ". " not in message and message.endswith("."), message


def keras(path, fill, names=(b"kernel",), layers=(b"conv",)):
    """A file of Keras 2 with one layer, which `fill` fills."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = layers
        group = file.create_group("conv")
        group.attrs["weight_names"] = names
        fill(group)
    return path


PACKED = {"compression": "gzip", "shuffle": True, "fletcher32": True}
KINDS = {
    "plain": NUMBERS,
    "big-endian": NUMBERS.astype(">f8"),
    "half": NUMBERS.astype("f2"),
    "integers": NUMBERS.astype("u1"),
    "booleans": NUMBERS > 5,
    "scalar": np.float32(7),
    "empty": NUMBERS[:0],
}


@pytest.mark.parametrize("options", [{}, PACKED], ids=["plain", "packed"])
def test_what_h5py_writes_is_read(options, tmp_path):
    def fill(group):
        for name, array in KINDS.items():
            group.create_dataset(name, data=array, **(options if array.size > 1 else {}))

    found = read(keras(tmp_path / "net.h5", fill, [name.encode() for name in KINDS]))
    assert len(found) == len(KINDS)
    for value, array in zip(found.values(), KINDS.values(), strict=True):
        np.testing.assert_array_equal(value, array)
        assert value.dtype == array.dtype.newbyteorder("=") and value.shape == array.shape


def external_storage(group):
    group.create_dataset("kernel", (3, 4), "f4", external=[("/dev/zero", 0, 48)])


def virtual(group):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (3, 4))
    group.create_virtual_dataset("kernel", layout)


def linked(link):
    def fill(group):
        group["kernel"] = link

    return fill


def dataset(*arguments, **options):
    return lambda group: group.create_dataset("kernel", *arguments, **options)


ELSEWHERE = {
    "external storage": (external_storage, "/conv/kernel in it has its numbers elsewhere"),
    "a virtual dataset": (virtual, "has its numbers elsewhere"),
    "an external link": (linked(h5py.ExternalLink("other.h5", "kernel")), "kernel in it is a link"),
    "a soft link": (linked(h5py.SoftLink("/conv/other")), "kernel in it is a link"),
    "nothing written": (dataset((10**9,), "f4"), "not of the size"),
    "nothing written, in pieces": (dataset((10**9,), "f4", chunks=(1000,)), "not of the size"),
    "many zeros": (
        dataset(data=np.zeros(3 * 10**7, "f4"), **PACKED),
        "more than 16 times the file",
    ),
    "another filter": (dataset(data=NUMBERS, compression="lzf"), "compressed in an unusual way"),
    "texts": (dataset(data=["a", "b"]), "of the type object"),
    "complex numbers": (dataset(data=NUMBERS * 1j), "of the type complex"),
    "a group": (lambda group: group.create_group("kernel"), "is no array"),
    "no array": (dataset(data=h5py.Empty("f4")), "is no array"),
    "nothing": (lambda group: None, "names kernel, which is not in it"),
}


@pytest.mark.parametrize(("fill", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_numbers_that_are_not_in_the_file_are_refused(fill, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("other.h5", "w") as file:
        file["kernel"] = NUMBERS
    refused(words, keras(tmp_path / "net.h5", fill))


def test_a_soft_link_is_refused_where_it_leads_too(tmp_path):
    def fill(group):
        group["other"] = NUMBERS
        group["kernel"] = h5py.SoftLink("/conv/other")

    refused("kernel in it is a link to elsewhere", keras(tmp_path / "net.h5", fill))


def test_a_layer_in_another_file_is_refused(tmp_path):
    keras(tmp_path / "other.h5", dataset(data=NUMBERS))
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file["conv"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "conv")
    refused("conv in it is a link to elsewhere", tmp_path / "net.h5")


NAMES = {
    "numbers": ({"names": [1, 2]}, "a name in it is no text"),
    "one number": ({"layers": 3}, "no list of names"),
    "through a tensor": ({"names": [b"kernel/x"]}, "names kernel/x, which is not in it"),
    "upwards": ({"layers": [b"../conv"]}, "which is not in it"),
}


@pytest.mark.parametrize(("options", "words"), NAMES.values(), ids=NAMES)
def test_names_that_are_none_are_refused(options, words, tmp_path):
    refused(words, keras(tmp_path / "net.h5", dataset(data=NUMBERS), **options))


def test_an_archive_holds_its_weights_as_keras_puts_them(tmp_path):
    keras(tmp_path / "net.h5", dataset(data=NUMBERS))
    content = (tmp_path / "net.h5").read_bytes()
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("model.weights.h5", content)
    np.testing.assert_array_equal(read(tmp_path / "net.keras")["conv/kernel"], NUMBERS)
    with zipfile.ZipFile(tmp_path / "packed.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", content)
    refused("no model.weights.h5, as Keras puts it", tmp_path / "packed.keras")


ENDS = {
    "a crash": ("import os; os.abort()", "the HDF5 library fails on it, with code -6"),
    "no end": ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "takes too long"),
    "an end in numbers": (
        """print('{"layers": [["a", [[[3], "<f4"]]]]}', flush=True); input(); print({})""",
        "fails on it",
    ),
}


@pytest.mark.parametrize(("program", "words"), ENDS.values(), ids=ENDS)
def test_what_happens_to_the_reading_process_is_told(program, words, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "PROGRAM", program)
    (tmp_path / "net.h5").touch()
    refused(words, tmp_path / "net.h5")


def test_what_takes_too_long_is_ended(tmp_path, monkeypatch):
    """A processor works for ever on it: the limit is what the reading process sets itself."""
    program = (
        "from lrpjax.models import hdf5_child as child; child.SECONDS = 1\n"
        "def opened(path):\n while True: pass\n"
        "child.opened = opened; child.serve()"
    )
    monkeypatch.setattr(hdf5, "PROGRAM", program)
    (tmp_path / "net.h5").touch()
    refused("reading it takes too long", tmp_path / "net.h5")


def test_what_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    program = (
        "from lrpjax.models import hdf5_child as child\n"
        "child.opened = lambda path: bytes(2**31) and []\n"
        "child.serve()"
    )
    monkeypatch.setattr(hdf5, "PROGRAM", program)
    (tmp_path / "net.h5").touch()
    counted = Path("/proc/self/statm").exists()  # as Linux counts it
    words = "asks for more memory than there is" if counted else "names no layers"
    refused(words, tmp_path / "net.h5")
