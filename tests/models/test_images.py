"""Images and labelled data sets, in every form in which they come, and damaged."""

from __future__ import annotations

import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from lrpjax.images import bundled_images, load_images
from lrpjax.models.cifar import CLASSES
from lrpjax.models.datasets import read_cifar10

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1])


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def batch_file(pixels, labels):
    flat = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return pickle.dumps({b"data": flat, b"labels": list(map(int, labels))}, protocol=2)


def test_twenty_labelled_images_come_with_the_package():
    pixels, labels = bundled_images()
    assert pixels.shape == (20, 32, 32, 3) and pixels.dtype == np.uint8
    assert labels.tolist()[:4] == [3, 8, 8, 0]  # cat, ship, ship, airplane


def test_folder_with_one_damaged_file(tmp_path):
    for i, image in enumerate(PIXELS):
        (tmp_path / f"{i}.png").write_bytes(encoded(image))
    (tmp_path / "2.png").write_bytes(encoded(PIXELS[2])[:60])
    (tmp_path / "notes.txt").write_text("no image")
    read = load_images([tmp_path], size=(32, 32))
    assert np.array_equal(read.pixels, PIXELS[[0, 1, 3]])
    assert read.names == ["0.png", "1.png", "3.png"]
    assert [name.rpartition("/")[2] for name, _ in read.skipped] == ["2.png", "notes.txt"]


def test_files_and_npz_are_resized(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS)
    (tmp_path / "b.png").write_bytes(encoded(np.zeros((10, 20, 3), np.uint8)))
    read = load_images([tmp_path / "a.npz", tmp_path / "b.png"], size=(16, 8))
    assert read.pixels.shape == (5, 16, 8, 3) and read.names[1] == "a.npz[1]"


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"No image could be read.*notes\.txt"):
        load_images([tmp_path], size=(32, 32))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_images([tmp_path / "nowhere"], size=(32, 32))


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_every_form_of_cifar10_reads_the_same(tmp_path):
    members = {
        "data_batch_1": batch_file(PIXELS[:2], LABELS[:2]),
        "data_batch_2": batch_file(PIXELS[2:], LABELS[2:]),
        "test_batch": batch_file(PIXELS[:1], LABELS[:1]),
    }
    archive(tmp_path / "cifar-10-python.tar.gz", members)
    unpacked = tmp_path / "cifar-10-batches-py"
    unpacked.mkdir()
    for name, content in members.items():
        (unpacked / name).write_bytes(content)
    np.savez(tmp_path / "plain.npz", images=PIXELS, labels=LABELS)
    pieces = [encoded(image) for image in PIXELS]
    offsets = np.cumsum([0, *map(len, pieces)])
    data = np.frombuffer(b"".join(pieces), np.uint8)
    np.savez(tmp_path / "encoded.npz", bytes=data, offsets=offsets, labels=LABELS)
    for name in ("cifar-10-python.tar.gz", "cifar-10-batches-py", "plain.npz", "encoded.npz"):
        images, labels = read_cifar10(tmp_path / name, train=True)
        assert np.array_equal(images, PIXELS) and labels.tolist() == LABELS.tolist(), name
    images, labels = read_cifar10(tmp_path / "cifar-10-python.tar.gz", train=False)
    assert np.array_equal(images, PIXELS[:1]) and labels.tolist() == [3]


def test_folders_by_class(tmp_path):
    for i, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encoded(PIXELS[i % 4]))
    images, labels = read_cifar10(tmp_path, train=True)
    assert labels.tolist() == list(range(10)) and np.array_equal(images[5], PIXELS[1])


def test_an_archive_that_runs_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("run",))

    archive(tmp_path / "bad.tar.gz", {"data_batch_1": pickle.dumps(Harmful())})
    with pytest.raises(ValueError, match=r"bad\.tar\.gz.*asks for builtins\.print, and only a"):
        read_cifar10(tmp_path / "bad.tar.gz", train=True)


def test_bad_data_sets(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_cifar10(tmp_path / "nowhere", train=True)
    np.savez(tmp_path / "a.npz", labels=LABELS)
    with pytest.raises(ValueError, match="images"):
        read_cifar10(tmp_path / "a.npz", train=True)
    np.savez(tmp_path / "b.npz", images=PIXELS[:, :16], labels=LABELS)
    with pytest.raises(ValueError, match=r"uint8\[4, 16, 32, 3\]"):
        read_cifar10(tmp_path / "b.npz", train=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one per class"):
        read_cifar10(tmp_path / "empty", train=True)


MODES = {"L": 200, "LA": (200, 90), "RGBA": (200, 100, 50, 90), "CMYK": (0, 0, 0, 55), "1": 1}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new(mode, (6, 4), MODES[mode]).save(tmp_path / f"a.{suffix}")
    found = load_images([tmp_path], size=(4, 6))
    grey = {"RGBA": [200, 100, 50], "1": [255] * 3}.get(mode, [200] * 3)
    np.testing.assert_array_equal(found.pixels, np.broadcast_to(np.uint8(grey), (1, 4, 6, 3)))
    assert found.skipped == []


def test_a_truncated_picture_is_skipped_and_listed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    found = load_images([tmp_path], size=(8, 8))
    assert found.names == ["whole.jpg"]
    [(name, reason)] = found.skipped
    assert name.endswith("half.jpg") and "truncated" in reason
