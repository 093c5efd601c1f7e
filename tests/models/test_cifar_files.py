"""CIFAR-10 from outside: archives that lie, labels out of range, and what is no file."""

import gzip
import io
import os
import pickle
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from lrpjax.models.cifar import CLASSES
from lrpjax.models.datasets import read_cifar10

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1])


def refused(words, path, kind=ValueError):
    with pytest.raises(kind, match=words) as caught:
        read_cifar10(path, train=True)
    message = str(caught.value)
    assert caught.type is kind and path.name in message
    assert "\n" not in message and ". " not in message and message.endswith("."), message


def batch(**changed):
    flat = PIXELS.transpose(0, 3, 1, 2).reshape(len(PIXELS), -1)
    return pickle.dumps({"data": flat, "labels": LABELS.tolist()} | changed, protocol=2)


def archive(path, members, kind="w:gz"):
    with tarfile.open(path, kind) as tar:
        for name, content in members:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_what_else_is_in_an_archive_is_passed_over(kind, tmp_path):
    members = [("readme.html", b"x" * 3000), ("data_batch_1", batch()), ("._data_batch_1", b"mac")]
    images, labels = read_cifar10(archive(tmp_path / "c.tar", members, kind), train=True)
    assert np.array_equal(images, PIXELS) and labels.tolist() == LABELS.tolist()


def header(name="data_batch_1", size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


WHOLE = header(size=1024) + bytes(1024)
ARCHIVES = {
    "no archive": (b"numbers", "TruncatedHeaderError"),
    "nothing": (b"", "EmptyHeaderError"),
    "cut in a batch": (header(size=4096) + bytes(1024), "end is missing"),
    "cut behind one": (header("a", 1024) + bytes(1024), "EmptyHeaderError"),
    "less than none": (header("a", -512) + bytes(1024), "unpacks to more than"),
    "a terabyte": (header("a", 2**40) + bytes(1024), "unpacks to more than"),
    "a batch of 100 MB": (header(size=10**8) + bytes(1024), "data_batch_1 in it is too long"),
    "a link": (header(kind=tarfile.SYMTYPE) + bytes(1024), "no CIFAR-10 batch file"),
    "many files": (header("a") * 1001, "more than 1,000 files"),
    "a checksum": (WHOLE[:100] + b"x" + WHOLE[101:], "bad checksum"),
}


@pytest.mark.parametrize(("content", "words"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_are_refused(content, words, tmp_path):
    (tmp_path / "c.tar").write_bytes(content)
    refused(words, tmp_path / "c.tar")


def test_an_archive_that_unpacks_to_gigabytes_is_refused_after_half_of_one(tmp_path):
    """5 MB are 5 GB: of 500 files of 10 MB each, 50 are passed over."""
    part = gzip.compress(header("a", 10**7) + bytes(-(-(10**7) // 512) * 512), 1)
    (tmp_path / "c.tar.gz").write_bytes(part * 500)
    refused("unpacks to more than 512 MiB", tmp_path / "c.tar.gz")


BATCHES = {
    "labels out of range": (batch(labels=[3, 1, 10, 1]), "label of image 2 .* is 10: .* 0 to 9"),
    "below": (batch(labels=[-1, 1, 0, 1]), "label of image 0 .* is -1"),
    "labels that are no numbers": (batch(labels=["cat"] * 4), "no list of labels"),
    "too few labels": (batch(labels=[3]), "no list of labels"),
    "no data": (batch(data=[1, 2]), r"no uint8 data \(N, 3072\)"),
    "data of floats": (batch(data=np.zeros((4, 3072))), "no uint8 data"),
    "small pictures": (batch(data=np.zeros((4, 300), np.uint8)), "no uint8 data"),
    "no dictionary": (pickle.dumps([1]), "holds a list"),
}


@pytest.mark.parametrize(("content", "words"), BATCHES.values(), ids=BATCHES)
def test_batches_that_are_refused(content, words, tmp_path):
    refused(words, archive(tmp_path / "c.tar.gz", [("data_batch_1", content)]))


def test_a_batch_that_stands_twice_is_refused(tmp_path):
    members = [("data_batch_1", batch()), ("data_batch_1", batch())]
    refused("holds data_batch_1 twice", archive(tmp_path / "c.tar.gz", members))


def png(shape=(32, 32), mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, shape).save(stream, "PNG")
    return stream.getvalue()


def encoded(pieces, offsets=None):
    ends = np.cumsum([0, *map(len, pieces)]) if offsets is None else np.array(offsets)
    return {"bytes": np.frombuffer(b"".join(pieces), np.uint8), "offsets": ends}


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
NPZ = {
    "labels out of range": ({"images": PIXELS, "labels": LABELS + 7}, "image 0 .* is 10"),
    "columns of labels": ({"images": PIXELS, "labels": LABELS[:, None]}, r"int64\[4, 1\]"),
    "labels of floats": ({"images": PIXELS, "labels": LABELS / 2}, r"float64\[4\]"),
    "few labels": ({"images": PIXELS, "labels": LABELS[:3]}, "needs uint8 images"),
    "floats": ({"images": PIXELS / 255, "labels": LABELS}, r"float64\[4, 32, 32, 3\]"),
    "wide integers": ({"images": PIXELS.astype("int16"), "labels": LABELS}, "int16"),
    "no labels": ({"images": PIXELS}, "lacks the array labels"),
    "no offsets": ({"bytes": PIXELS.ravel(), "labels": LABELS}, "lacks the array images"),
    "offsets beyond": (encoded([png()], [0, 10**6]) | {"labels": LABELS[:1]}, "no places in"),
    "offsets backwards": (encoded([png()], [60, 0]) | {"labels": LABELS[:1]}, "no places in"),
    "a large picture": (encoded([png((64, 32))]) | {"labels": LABELS[:1]}, r"\(64, 32\) pixels"),
    "16 bits": (encoded([png(mode="I;16")]) | {"labels": LABELS[:1]}, "mode I;16"),
    "a program": (encoded([EPS]) | {"labels": LABELS[:1]}, "UnidentifiedImageError"),
    "no picture": (encoded([b"numbers"]) | {"labels": LABELS[:1]}, "UnidentifiedImageError"),
    "objects": ({"images": np.array([1, "a"], object), "labels": LABELS}, "no array of numbers"),
}


@pytest.mark.parametrize(("arrays", "words"), NPZ.values(), ids=NPZ)
def test_arrays_that_are_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "c.npz", **arrays)
    refused(words, tmp_path / "c.npz")


def test_an_archive_of_zeros_is_not_unpacked(tmp_path):
    """A million images, which pack to 3 MB."""
    images = np.broadcast_to(np.uint8(0), (101_000, 32, 32, 3))
    np.savez_compressed(tmp_path / "c.npz", images=images, labels=LABELS)
    refused("more than 100,000 images", tmp_path / "c.npz")


def test_nothing_but_files_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    refused("it is a pipe, no file", tmp_path / "pipe.npz")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    os.mkfifo(unpacked / "data_batch_1")
    with pytest.raises(ValueError, match=r"data_batch_1.*it is a pipe"):
        read_cifar10(unpacked, train=True)
    classes = tmp_path / "classes"
    for name in CLASSES:
        (classes / name).mkdir(parents=True)
    os.mkfifo(classes / "cat" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*it is a pipe"):
        read_cifar10(classes, train=True)


def test_a_picture_of_another_size_is_named(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".hidden").write_bytes(b"no picture")
    (tmp_path / "cat" / "a.png").write_bytes(png((30, 32)))
    with pytest.raises(ValueError, match=re.escape("(30, 32) pixels of mode RGB, not (32, 32)")):
        read_cifar10(tmp_path, train=True)
    (tmp_path / "cat" / "a.png").write_bytes(png())
    assert read_cifar10(tmp_path, train=True)[1].tolist() == [sorted(CLASSES).index("cat")]


def test_a_folder_without_the_batches_that_are_wanted(tmp_path):
    (tmp_path / "test_batch").write_bytes(batch())
    refused("holds no training batch", tmp_path)
