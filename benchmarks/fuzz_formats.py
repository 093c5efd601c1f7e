"""The formats that benchmarks/fuzz.py damages: whole files, their damage, and who reads them."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import pickle
import random
import re
import signal
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import mutations
import numpy as np
import safetensors.numpy

from lrpjax._base.arrays import encoded
from lrpjax._base.npy import open_npz
from lrpjax._base.reading import reading
from lrpjax._base.results import Results
from lrpjax.auditing import Audit
from lrpjax.auditing.verdict import DEFAULT
from lrpjax.convergence import CSC
from lrpjax.models import hdf5_child, training
from lrpjax.models.checkpoint import open_checkpoint
from lrpjax.models.datasets import read_cifar10
from lrpjax.patterns.fitting import stored
from lrpjax.sanity import Cascade

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
Arrays = dict[str, Any]
NUMBERS = np.arange(24, dtype="f4").reshape(4, 6)


class Format(NamedTuple):
    """seeds: whole files. damaged: from a generator and a file to another. ours, own: from a path
    to what this library and the format's own reader find there (none: torch, a process apart)."""

    suffix: str
    seeds: Callable[[], list[bytes]]
    damaged: Callable[[random.Random, bytes], bytes]
    ours: Callable[[Path], Arrays]
    own: Callable[[Path], Arrays] | None


def checkpoint(path: Path) -> Arrays:
    with open_checkpoint(path) as file:
        return {name: tensor.read() for name, tensor in file.tensors.items()}


# --- torch, numpy, safetensors -------------------------------------------------------------------


def in_torch_zip(draw: random.Random, name: str, data: bytes) -> bytes:
    return (mutations.pickled if name.endswith(".pkl") else mutations.bytes_of)(draw, data)


def in_npz(draw: random.Random, name: str, data: bytes) -> bytes:
    return (mutations.npy if data[:6] == b"\x93NUMPY" else mutations.bytes_of)(draw, data)


def torch_files(pattern: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        files = sorted(REFERENCE.glob("torch_*.pth"))
        return [f.read_bytes() for f in files if re.fullmatch(pattern, f.name)]

    return seeds


def safetensors_files() -> list[bytes]:
    tensors = {"w": NUMBERS, "b": NUMBERS[0].astype("f2"), "n": np.arange(3), "on": NUMBERS[1] > 8}
    return [
        safetensors.numpy.save(tensors, {"mode": "relu"}),
        safetensors.numpy.save({"w": NUMBERS}),
    ]


def patterns(path: Path) -> Arrays:
    tensors, mode = stored(path)
    return flat({"mode": mode, "tensors": tensors})


def safetensors_patterns(path: Path) -> Arrays:
    with safetensors.safe_open(path, "numpy") as file:
        mode = (file.metadata() or {}).get("mode")
    return flat({"mode": mode, "tensors": known(path)})


ROWS = '[{"epoch": 1, "test_accuracy": 0.25}, {"epoch": 2, "test_accuracy": null}]'
STATE = {"params": {"w": NUMBERS, "b": NUMBERS[0]}, "count": np.int32(3)}


def training_files() -> list[bytes]:
    return [of_training(ROWS.encode())]


def of_training(rows: bytes) -> bytes:
    about = {"rows": rows.decode(errors="replace")}
    return safetensors.numpy.save(training._named(STATE), about)


def damaged_training(draw: random.Random, data: bytes) -> bytes:
    """Half of them in what is our own: the text that says which epochs are finished."""
    if draw.random() < 0.5:
        return mutations.safetensors(draw, data)
    return of_training(mutations.as_json(draw, ROWS.encode()))


def trained(path: Path) -> Arrays:
    state = training._named(training._restored(path, STATE))
    return flat({"rows": training._rows(path), "state": state})


def safetensors_training(path: Path) -> Arrays:
    with safetensors.safe_open(path, "numpy") as file:
        rows = json.loads(file.metadata()["rows"])
    return flat({"rows": rows, "state": known(path)})


def npz_files() -> list[bytes]:
    found = []
    arrays = {
        "w": NUMBERS,
        "columns": np.asfortranarray(NUMBERS),
        "names": np.array(["a", "bc"]),
        "one": np.uint8(3),
        "on": NUMBERS > 8,
        "big": NUMBERS.astype(">f8"),
    }
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **arrays)
        found.append(stream.getvalue())
    return found


def npz(path: Path) -> Arrays:
    with reading(path, "arrays"), open_npz(path) as arrays:
        return {name: array.read() for name, array in arrays.items()}


def numpys_npz(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


# --- HDF5 ----------------------------------------------------------------------------------------


def hdf5_files() -> list[bytes]:
    found = []
    for options in (
        {},
        {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (2, 3)},
    ):
        for version in ("earliest", "latest"):
            stream = io.BytesIO()
            with h5py.File(stream, "w", libver=version) as file:
                file.attrs["layer_names"] = [b"conv", b"bn"]
                group = file.create_group("conv")
                group.attrs["weight_names"] = ["conv/kernel:0", "conv/bias:0"]
                group.create_dataset("conv/kernel:0", data=NUMBERS, **options)
                group["conv/bias:0"] = NUMBERS[0].astype("f2")
                group = file.create_group("bn")
                group.attrs["weight_names"] = [b"g", b"b"]
                group.create_dataset("g", data=NUMBERS.astype(">f8"), **options)
                group["b"] = NUMBERS.astype("i4")
            found.append(stream.getvalue())
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:  # as Keras 3 saves weights
            group = file.create_group("layers/dense/vars")
            group.attrs["name"] = "dense"
            group.create_dataset("0", data=NUMBERS, **options)
            group["1"] = NUMBERS[0]
        found.append(stream.getvalue())
    return found


def keras_files() -> list[bytes]:
    found = []
    for content in hdf5_files():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", content)
        found.append(stream.getvalue())
    return found


def unusual(draw: random.Random) -> bytes:
    """A file of Keras 2, written whole, with datasets, links and names of every kind."""
    stream = io.BytesIO()
    kinds: list[Callable[[Any], Any]] = [
        lambda g: g.create_dataset(
            "w", data=NUMBERS.astype(draw.choice("f2 f4 >f8 i1 u8".split()))
        ),
        lambda g: g.create_dataset("w", data=NUMBERS, chunks=(1, 3), shuffle=True, compression=4),
        lambda g: g.create_dataset("w", data=NUMBERS, compression="lzf"),
        lambda g: g.create_dataset("w", data=NUMBERS, scaleoffset=2),
        lambda g: g.create_dataset("w", data=NUMBERS > 5, fletcher32=True, chunks=(4, 6)),
        lambda g: g.create_dataset("w", data=NUMBERS * draw.choice((1j, "S3", "O"))),
        lambda g: g.create_dataset("w", data=["a", "b"]),
        lambda g: g.create_dataset("w", (10 ** draw.randrange(12),), "f4", chunks=(10,)),
        lambda g: g.create_dataset("w", (10 ** draw.randrange(12), 3), "f8"),
        lambda g: g.create_dataset("w", (3, 4), "f4", external=[("/dev/zero", 0, 48)]),
        lambda g: g.create_dataset("w", data=h5py.Empty("f4")),
        lambda g: g.create_virtual_dataset("w", h5py.VirtualLayout((3, 4), "f4")),
        lambda g: g.__setitem__("w", h5py.ExternalLink("other.h5", "w")),
        lambda g: g.__setitem__("w", h5py.SoftLink(draw.choice(("/a/w", "/a", "/", "x")))),
        lambda g: g.__setitem__("w", g),
        lambda g: g.create_group("w"),
        lambda g: None,
    ]
    with h5py.File(stream, "w", libver=draw.choice(("earliest", "latest"))) as file:
        names = draw.choice(([b"a"], ["a"], [b"a", b"a"], [b"/a"], [b"a/../a"], [b"b"], [3], 3, []))
        file.attrs["layer_names"] = names
        group = file.create_group("a")
        group.attrs["weight_names"] = draw.choice(
            ([b"w"], ["w"], [b"w", b"w"], [b"w/w"], [b"."], [2])
        )
        with contextlib.suppress(TypeError, ValueError):  # h5py writes no array of some
            draw.choice(kinds)(group)
    return stream.getvalue()


def damaged_hdf5(draw: random.Random, data: bytes) -> bytes:
    if draw.random() < 0.3:
        whole = unusual(draw)
        return mutations.hdf5(draw, whole) if draw.random() < 0.3 else whole
    return mutations.hdf5(draw, data)


def in_keras(draw: random.Random, name: str, data: bytes) -> bytes:
    return (damaged_hdf5 if name.endswith(".h5") else mutations.bytes_of)(draw, data)


def hdf5(path: Path) -> Arrays:
    """What the reading process does, in this one; what takes longer than half a second ends it, and
    is read again in earnest."""
    signal.setitimer(signal.ITIMER_PROF, 0.5)
    try:
        with reading(path, "weight file"):
            hdf5_child.limit(path.stat().st_size)
            return {
                f"{layer}/{i}": hdf5_child.read(weight).reshape(weight.shape)
                for layer, weights in hdf5_child.opened(path)
                for i, weight in enumerate(weights)
            }
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def h5pys(path: Path) -> Arrays:
    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    found: Arrays = {}
    text = lambda name: name if isinstance(name, str) else name.decode()
    with h5py.File(source) as file:
        file = file.get("model_weights", file)
        if "layer_names" in file.attrs:
            for layer in map(text, file.attrs["layer_names"]):
                for i, name in enumerate(map(text, file[layer].attrs["weight_names"])):
                    found[f"{layer}/{i}"] = file[layer][name][()]
        else:

            def visit(name: str, group: Any) -> None:
                if name.endswith("vars") and "name" in group.attrs:
                    for i, number in enumerate(sorted(group, key=int)):
                        found[f"{text(group.attrs['name'])}/{i}"] = group[number][()]

            if "layers" in file:
                file["layers"].visititems(visit)
    return found


# --- CIFAR-10 ------------------------------------------------------------------------------------


def cifar_files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
    python2 = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05batchq\x03U\x06labelsq\x04]q\x05(K\x06K\x09e"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09"
        b"U\x01bq\x0a\x87Rq\x0b(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x0cU\x02u1K\x00K\x01\x87Rq\x0d"
        b"(K\x03U\x01|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00"
        + pixels.tobytes() + b"tbu."
    )  # fmt: skip
    batch = {b"data": pixels, b"labels": [3, 1]}
    batches = [python2, *(pickle.dumps(batch, protocol) for protocol in (2, 4, 5))]
    found = []
    for content in batches:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, data in (("readme.html", b"x" * 600), ("data_batch_1", content)):
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        found += [stream.getvalue(), gzip.compress(stream.getvalue(), 1)]
    return found


def cifar(path: Path) -> Arrays:
    images, labels = read_cifar10(path, train=True)
    return {"images": images, "labels": labels}


def pythons_cifar(path: Path) -> Arrays:
    """Python's own pickle, of files alone that ours has read: that one runs what it finds."""
    batches = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if re.fullmatch(r"data_batch_\d+", member.name.rpartition("/")[2]) and member.isreg():
                content = archive.extractfile(member)
                batches[member.name] = pickle.loads(content.read(), encoding="bytes")
    found = [
        {(k.decode() if isinstance(k, bytes) else k): v for k, v in batches[name].items()}
        for name in sorted(batches)
    ]
    images = np.concatenate([batch["data"] for batch in found])
    labels = np.concatenate([batch["labels"] for batch in found])
    shaped = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return {"images": shaped, "labels": labels.astype(np.int32)}


# --- results -------------------------------------------------------------------------------------

CSC_ROW = dict.fromkeys(CSC.required, 0.5) | {"method": "lrp-z", "undirected": None}


def results_files() -> list[bytes]:
    content = CSC({"seed": 1, "maps": NUMBERS}, [CSC_ROW, CSC_ROW | {"median": None}]).content()
    return [json.dumps(encoded(content)).encode()]


def audit_files() -> list[bytes]:
    maps = {"gradient": NUMBERS.reshape(2, 2, 2, 3)}
    row = {"method": "gradient", "layer": "trained", "largest": 1.0}
    grid = Cascade({}, [row], maps, np.zeros((2, 4, 4, 3)), ["trained", "dense"])
    rows = [{"method": "gradient", "check": "failed", "reason": "none"}]
    audit = Audit({"seed": 1}, rows, DEFAULT, grid)
    return [json.dumps(encoded(audit.content())).encode(), audit.to_json().encode()]


def flat(tree: Any, name: str = "") -> Arrays:
    """Arrays by their place; all else as one text."""
    if isinstance(tree, dict):
        items: Any = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        return {name: tree if isinstance(tree, np.ndarray) else np.array(repr(tree))}
    return {k: v for key, each in items for k, v in flat(each, f"{name}/{key}").items()}


def results(kind: type[Results]) -> Callable[[Path], Arrays]:
    def read(path: Path) -> Arrays:
        found = kind.load(path)
        grid = getattr(found, "grid", None)
        more = {"thresholds": asdict(found.thresholds)} if isinstance(found, Audit) else {}
        return flat(
            {"settings": found.settings, "rows": found.rows, "grid": grid and grid.maps, **more}
        )

    return read


def jsons(path: Path) -> Arrays:
    def arrays(tree: Any) -> Any:
        if isinstance(tree, list):
            return [arrays(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if tree.keys() == {"npy"} and isinstance(tree["npy"], str):
            return np.load(io.BytesIO(base64.b64decode(tree["npy"])))
        return {name: arrays(each) for name, each in tree.items()}

    found = arrays(json.loads(path.read_text(encoding="utf-8")))
    grid = found.get("grid")
    told = found.get("thresholds")  # those that are not told are as they are by themselves
    more = {} if told is None else {"thresholds": asdict(DEFAULT) | told}
    return flat(
        {
            "settings": found["settings"],
            "rows": found["rows"],
            "grid": grid and grid["maps"],
            **more,
        }
    )


def zipped(inside: Callable) -> Callable[[random.Random, bytes], bytes]:
    return lambda draw, data: mutations.zipped(draw, data, inside)


in_zip, old = zipped(in_torch_zip), mutations.legacy
known = safetensors.numpy.load_file
FORMATS = {
    "torch": Format(".pth", torch_files(r"torch_[a-z]+\.pth"), in_zip, checkpoint, None),
    "torch-legacy": Format(".pth", torch_files(r".*_legacy\.pth"), old, checkpoint, None),
    "safetensors": Format(
        ".safetensors", safetensors_files, mutations.safetensors, checkpoint, known
    ),
    "patterns": Format(
        ".safetensors", safetensors_files, mutations.safetensors, patterns, safetensors_patterns
    ),
    "training": Format(
        ".safetensors", training_files, damaged_training, trained, safetensors_training
    ),
    "npz": Format(".npz", npz_files, zipped(in_npz), npz, numpys_npz),
    "hdf5": Format(".h5", hdf5_files, damaged_hdf5, hdf5, h5pys),
    "keras": Format(".keras", keras_files, zipped(in_keras), hdf5, h5pys),
    "cifar": Format(".tar", cifar_files, mutations.tar, cifar, pythons_cifar),
    "results": Format(".json", results_files, mutations.as_json, results(CSC), jsons),
    "audit": Format(".json", audit_files, mutations.as_json, results(Audit), jsons),
}
