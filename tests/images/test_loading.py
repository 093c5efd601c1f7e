"""Folders, files and arrays: which are read, in which order, of which size, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers.picture_files import png, tiff
from PIL import Image

from lrpjax.images import bundled_images, load_images
from lrpjax.images.finding import Found

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
WIDE = RNG.integers(0, 256, (40, 60, 3), np.uint8)
ROUNDING = 2  # levels: half of one after either direction, and the second may enlarge the first


def picture(pixels):
    return png(pixels, colour=2, depth=8)


def saved(folder, **files):
    for name, pixels in files.items():
        (folder / f"{name}.png").write_bytes(picture(pixels))
    return folder


def resized(pixels, height, width):
    """Pillow's bicubic resampling from its definition: Keys' kernel with a = -1/2, made wider by
    the factor by which the picture shrinks; of bytes, what one direction gives is bytes again."""

    def weights(before, after):
        scale = max(before / after, 1)
        centres = (np.arange(after) + 0.5) * before / after
        distance = np.abs((np.arange(before) + 0.5)[None] - centres[:, None]) / scale
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        kernel = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        return kernel / kernel.sum(1, keepdims=True)

    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    across = np.einsum("hwc,bw->hbc", pixels.astype(float), columns)
    across = np.clip(np.round(across), 0, 255) if pixels.dtype == np.uint8 else across
    return np.clip(np.einsum("ah,hbc->abc", rows, across), 0, 255)


def test_twenty_labelled_images_come_with_the_package():
    pixels, labels = bundled_images()
    assert pixels.shape == (20, 32, 32, 3) and pixels.dtype == np.uint8
    assert labels.tolist()[:4] == [3, 8, 8, 0]  # cat, ship, ship, airplane


def test_folder_with_one_damaged_file(tmp_path):
    saved(tmp_path, **{str(i): image for i, image in enumerate(PIXELS)})
    (tmp_path / "2.png").write_bytes(picture(PIXELS[2])[:60])
    (tmp_path / "notes.txt").write_text("no image")
    read = load_images([tmp_path], size=(32, 32))
    assert np.array_equal(read.pixels, PIXELS[[0, 1, 3]]) and read.levels
    assert read.names == ["0.png", "1.png", "3.png"]
    assert [name.rpartition("/")[2] for name, _ in read.skipped] == ["2.png", "notes.txt"]


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"No image could be read.*notes\.txt"):
        load_images([tmp_path], size=(32, 32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"No image could be read from .*empty \(no files\)"):
        load_images([tmp_path / "empty"], size=(32, 32))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_images([tmp_path / "nowhere"], size=(32, 32))


def test_a_truncated_picture_is_skipped_and_listed(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    found = load_images([tmp_path], size=(8, 8))
    assert found.names == ["whole.jpg"]
    [(name, reason)] = found.skipped
    assert name.endswith("half.jpg") and "truncated" in reason


def test_files_come_in_the_order_of_the_bytes_of_their_paths(tmp_path):
    names = ["B.png", "a/1.png", "a/10.png", "a/2.png", "a.png", "a0.png", "é.png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(np.full((2, 2, 3), i, np.uint8)))
    found = load_images([tmp_path], size=None)
    expected = sorted(names, key=lambda name: name.encode())
    assert found.names == expected and expected.index("a.png") < expected.index("a/1.png")
    assert found.pixels[:, 0, 0, 0].tolist() == [names.index(name) for name in expected]


def test_a_name_that_is_no_text_is_escaped(tmp_path):
    for name in ("a\nb.png", "\x1b[31m.txt"):
        (tmp_path / name).write_bytes(picture(PIXELS[0]) if "png" in name else b"")
    found = load_images([tmp_path], size=None)
    assert found.names == [r"a\nb.png"]
    [(skipped, _)] = found.skipped
    assert skipped.endswith(r"/\x1b[31m.txt")
    other = os.fsdecode(b"\xff.png")  # which not every system lets one write: no UTF-8
    assert Found(tmp_path / other, other).name == r"\udcff.png"


def test_links_are_not_followed_and_hidden_files_not_read(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for each in (outside, folder, folder / ".hidden"):
        each.mkdir()
        saved(each, a=PIXELS[0])
    saved(folder, **{".b": PIXELS[1]})
    (folder / "link.png").symlink_to(outside / "a.png")
    (folder / "folder").symlink_to(outside)
    (folder / "gone.png").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "pipe.png")
    found = load_images([folder], size=None)
    assert found.names == ["a.png"]
    reasons = {name.rpartition("/")[2]: why for name, why in found.skipped}
    assert set(reasons) == {"link.png", "folder", "gone.png", "pipe.png"}
    assert all(
        "link, which is not followed" in reasons[name] for name in set(reasons) - {"pipe.png"}
    )
    assert reasons["pipe.png"] == "it is no file"
    with pytest.raises(ValueError, match="it is no file"):
        load_images([folder / "pipe.png"], size=None)


def test_a_picture_is_resized_whole_by_the_filter_that_is_named(tmp_path):
    saved(tmp_path, wide=WIDE)
    for size in ((16, 20), (50, 90)):
        found = load_images([tmp_path], size=size)
        assert np.abs(found.pixels[0] - resized(WIDE, *size)).max() <= ROUNDING


def test_the_centre_is_cut_out_of_the_resized_short_side(tmp_path):
    saved(tmp_path, tall=WIDE.swapaxes(0, 1), wide=WIDE)
    found = load_images([tmp_path], size=(21, 21), crop=True)  # 21 x 256 / 224 = 24
    expected = resized(WIDE, 24, 36)[2:23, 8:29]  # (24 - 21) / 2 = 1.5 and 7.5, to even
    assert np.abs(found.pixels[1] - expected).max() <= ROUNDING
    tall = resized(WIDE.swapaxes(0, 1), 36, 24)[8:29, 2:23]
    assert np.abs(found.pixels[0] - tall).max() <= ROUNDING
    oblong = load_images([tmp_path / "wide.png"], size=(21, 42), crop=True)  # 24 x 48 is covered
    assert np.abs(oblong.pixels[0] - resized(WIDE, 32, 48)[6:27, 3:45]).max() <= ROUNDING


def test_images_of_several_sizes_need_one(tmp_path):
    saved(tmp_path, a=WIDE, b=PIXELS[0], c=PIXELS[1])
    with pytest.raises(ValueError, match=r"size \(a.png 40x60x3, b.png 32x32x3\).*--size"):
        load_images([tmp_path], size=None)
    assert load_images([tmp_path], size=(8, 8)).pixels.shape == (3, 8, 8, 3)
    with pytest.raises(ValueError, match="needs a size"):
        load_images([tmp_path], size=None, crop=True)


ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}  # what the tag says must be done to what is stored


@pytest.mark.parametrize("orientation", ORIENTED)
def test_a_photograph_is_turned_as_its_camera_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(WIDE).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "b.tif").write_bytes(tiff(WIDE, photometric=2, orientation=orientation))
    deep = WIDE[..., 0].astype(np.uint16) * 257
    (tmp_path / "c.tif").write_bytes(tiff(deep, orientation=orientation))
    Image.fromarray(deep).save(tmp_path / "d.tif", compression="tiff_deflate", tiffinfo=exif)
    found = load_images([tmp_path], size=None)
    assert found.skipped == []
    for pixels in found.pixels[:2]:
        assert np.array_equal(pixels, ORIENTED[orientation](WIDE))
    for pixels in found.pixels[2:]:
        np.testing.assert_allclose(pixels[..., 0], ORIENTED[orientation](WIDE[..., 0]), atol=1e-4)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    exact = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], **exact)
    frames[1].save(tmp_path / f"b.{kind}", **exact)
    found = load_images([tmp_path], size=None)
    assert found.pixels[:, 1, 1].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert found.first_frames == [f"a.{kind}"]


def test_pixels_are_bounded_by_the_number_that_is_given(tmp_path):
    saved(tmp_path, a=WIDE, b=PIXELS[0])
    found = load_images([tmp_path], size=(8, 8), max_pixels=2399)
    [(name, reason)] = found.skipped
    assert found.names == ["b.png"] and name.endswith("a.png")
    assert "more than 2399 pixels" in reason and "--max-pixels" in reason
    before = Image.MAX_IMAGE_PIXELS
    assert load_images([tmp_path], size=(8, 8), max_pixels=2400).names == ["a.png", "b.png"]
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    whole = picture(np.zeros((1, 1, 3), np.uint8))
    header = (10**5).to_bytes(4, "big") * 2 + whole[24:29]
    import zlib

    crc = zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(whole[:16] + header + crc + whole[33:])
    with pytest.raises(ValueError, match="more than 100000000 pixels"):
        load_images([tmp_path], size=(8, 8))


def test_arrays_of_levels_are_as_pictures(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, other=0)
    np.savez(tmp_path / "b.npz", anything=PIXELS[:1].astype(np.uint16) * 257)
    np.save(tmp_path / "c.npy", PIXELS[1])
    saved(tmp_path, d=PIXELS[2])
    found = load_images([tmp_path], size=None)
    assert found.names == [*(f"a.npz[{i}]" for i in range(4)), "b.npz", "c.npy", "d.png"]
    assert found.pixels.dtype == np.float32 and found.levels
    np.testing.assert_allclose(found.pixels, PIXELS[[0, 1, 2, 3, 0, 1, 2]], atol=1e-4)
    small = load_images([tmp_path / "a.npz"], size=(16, 8))
    assert small.pixels.dtype == np.uint8 and small.pixels.shape == (4, 16, 8, 3)
    assert np.abs(small.pixels[0] - resized(PIXELS[0], 16, 8)).max() <= ROUNDING


def test_arrays_of_deep_levels_are_resized_without_rounding(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS.astype(np.float64))
    found = load_images([tmp_path], size=(16, 8), values=(0.0, 255.0))
    expected = np.stack([resized(image.astype(float), 16, 8) for image in PIXELS])
    np.testing.assert_allclose(found.pixels, expected, atol=1e-3)
    grey = load_images([tmp_path], size=None, values=(0.0, 255.0), channels=1)
    luma = PIXELS @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey.pixels[..., 0], luma, atol=1e-3)


def test_floats_are_what_a_model_takes_or_need_a_range(tmp_path):
    floats = RNG.normal(size=(3, 5, 7, 12))
    np.savez(tmp_path / "a.npz", spectra=floats)
    with pytest.raises(ValueError, match=r"holds floats.*--range"):
        load_images([tmp_path], size=None)
    found = load_images([tmp_path], size=None, raw_floats=True)
    assert np.array_equal(found.pixels, floats) and not found.levels
    scaled = load_images([tmp_path], size=None, raw_floats=True, values=(-9.0, 9.0))
    np.testing.assert_allclose(scaled.pixels, (floats + 9) / 18 * 255, atol=1e-3)
    assert scaled.levels
    saved(tmp_path, b=PIXELS[0])
    with pytest.raises(ValueError, match=r"a.npz holds floats.* and b.png levels"):
        load_images([tmp_path], size=None, raw_floats=True)


def test_arrays_in_a_folder_are_one_example_each(tmp_path):
    spectra = RNG.integers(0, 256, (3, 5, 7, 12), np.uint8)
    for i, each in enumerate(spectra):
        np.save(tmp_path / f"{i}.npy", each)
    found = load_images([tmp_path], size=(5, 7), channels=12)
    assert np.array_equal(found.pixels, spectra) and found.names == ["0.npy", "1.npy", "2.npy"]
    saved(tmp_path, a=PIXELS[0])
    [(_, reason)] = load_images([tmp_path], size=(5, 7), channels=12).skipped
    assert "takes 12 channels" in reason
    np.save(tmp_path / "3.npy", np.moveaxis(spectra[0], -1, 0))  # channels first
    assert len(load_images([tmp_path / "3.npy"], size=(5, 7), channels=12).pixels) == 1


ARRAYS = {
    "objects": ({"images": np.array([{}])}, "no array of numbers"),
    "several": ({"a": PIXELS, "b": PIXELS}, "`images`, or a single one, and has a, b"),
    "none": ({}, "has none"),
    "text": ({"images": np.array([["a"]])}, "floats or integers are needed"),
    "complex": ({"images": PIXELS * 1j}, "complex128"),
    "one axis": ({"images": np.arange(5)}, r"array \(5,\)"),
    "NaN": ({"images": np.full((1, 4, 4, 3), np.nan)}, "NaN"),
    "wide integers": ({"images": PIXELS.astype(np.int64)}, "from 0 to 255, and .*--range"),
    "too large": ({"images": np.zeros((1, 9, 9, 12), np.uint8)}, r"\(9, 9, 12\).*32x32"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_images_are_refused(tmp_path, kind):
    arrays, reason = ARRAYS[kind]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=reason):
        load_images([tmp_path], size=(32, 32))


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_damaged_arrays_are_refused(tmp_path, suffix):
    np.savez(tmp_path / "whole.npz", images=PIXELS)
    np.save(tmp_path / "whole.npy", PIXELS[0])
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], whole[:50]):
        (tmp_path / f"a.{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match="No image could be read"):
            load_images([tmp_path / f"a.{suffix}"], size=None)


@pytest.mark.parametrize("size", [(8, 8), None])
def test_options_that_are_none(tmp_path, size):
    saved(tmp_path, a=PIXELS[0])
    with pytest.raises(ValueError, match=r"no colour 'whit'.*#rrggbb"):
        load_images([tmp_path], size=size, background="whit")
    for values in ((1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)):
        with pytest.raises(ValueError, match="from black to white"):
            load_images([tmp_path], size=size, values=values)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    saved(tmp_path, a=PIXELS[0])

    def refused(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match=r"cannot be read \(Permission denied\)"):
        load_images([tmp_path], size=None)
