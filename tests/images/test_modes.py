"""Every kind of pixels arrives as a person sees it: files written by hand, levels worked out."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from helpers.picture_files import png, portable, tiff
from PIL import Image

from lrpjax.images import load_images
from lrpjax.images.depth import Depth
from lrpjax.images.modes import MODES, View, shown

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), np.uint8)
DEEP = RNG.integers(0, 2**16, (5, 7), np.uint16)
WIDE = RNG.integers(0, 2**32, (5, 7), np.uint32)
SIGNED = RNG.integers(-(2**31), 2**31, (5, 7), np.int64).astype(np.int32)
SHORT = RNG.integers(-(2**15), 2**15, (5, 7), np.int64).astype(np.int16)
FLOATS = RNG.uniform(-2, 3, (5, 7)).astype(np.float32)
LAB = np.dstack([GREY // 4 + 96, GREY % 20, GREY % 30]).astype(np.uint8)
WHITE = (255, 255, 255)


def over(colours, alpha, background=WHITE):
    """Porter and Duff's A over an opaque B, in real numbers."""
    share = alpha.astype(float) / 255
    return share * colours + (1 - share) * np.array(background, float)


def srgb(lab):
    """CIE L*a*b* of the white D50, in 8 bits, as sRGB in [0, 1], adapted to D65 by Bradford."""
    lightness, a, b = (lab.astype(float) / (2.55, 1, 1)).transpose(2, 0, 1)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    from_d50 = [  # the inverse of sRGB's matrix, with Bradford's adaptation (B. Lindbloom)
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.array(from_d50).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def read(tmp_path, name, content, **options):
    (tmp_path / name).write_bytes(content)
    found = load_images([tmp_path / name], size=None, **options)
    return found.pixels[0]


def saved(kind):
    """A file that is written without loss."""
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, kind)
    return stream.getvalue()


GREY_FILES = {
    "8 bits": ("a.png", png(GREY, colour=0, depth=8), GREY),
    "16 bits, PNG": ("a.png", png(DEEP, colour=0, depth=16), DEEP / 257),
    "16 bits, TIFF": ("a.tif", tiff(DEEP), DEEP / 257),
    "16 bits, big end first": ("a.tif", tiff(DEEP, order=">"), DEEP / 257),
    "16 bits, 0 is white": ("a.tif", tiff(DEEP, photometric=0), 255 - DEEP / 257),
    "8 bits, 0 is white": ("a.tif", tiff(GREY, photometric=0), 255 - GREY.astype(float)),
    "signed 16 bits": ("a.tif", tiff(SHORT), (SHORT + 32768.0) / 257),
    "unsigned 32 bits": ("a.tif", tiff(WIDE), WIDE / (2**32 - 1) * 255),
    "signed 32 bits": ("a.tif", tiff(SIGNED), (SIGNED + 2.0**31) / (2**32 - 1) * 255),
    "16 bits, PGM": ("a.pgm", portable(DEEP, 65535), DEEP / 257),
}


@pytest.mark.parametrize("kind", GREY_FILES)
def test_integers_are_scaled_by_the_range_of_their_type(tmp_path, kind):
    name, content, expected = GREY_FILES[kind]
    found = read(tmp_path, name, content)
    assert found.dtype == (np.uint8 if "8 bits" in kind else np.float32)
    np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, -1), atol=1e-4)
    grey = read(tmp_path, name, content, channels=1)
    np.testing.assert_allclose(grey[..., 0], expected, atol=1e-4)


COLOUR_FILES = {
    "JPEG 2000": ("a.jp2", saved("JPEG2000"), RGB),
    "RGB": ("a.png", png(RGB, colour=2, depth=8), RGB),
    "RGB, TIFF": ("a.tif", tiff(RGB, photometric=2), RGB),
    "RGB with alpha": (
        "a.png",
        png(np.concatenate([RGB, ALPHA], -1), colour=6, depth=8),
        over(RGB, ALPHA),
    ),
    "grey with alpha": (
        "a.png",
        png(np.concatenate([GREY[..., None], ALPHA], -1), colour=4, depth=8),
        over(GREY[..., None], ALPHA),
    ),
    "one transparent grey": (
        "a.png",
        png(GREY, colour=0, depth=8, transparent=struct.pack(">H", GREY[2, 3])),
        np.where(GREY[2, 3] == GREY, 255, GREY)[..., None],
    ),
    "one transparent colour": (
        "a.png",
        png(RGB, colour=2, depth=8, transparent=struct.pack(">3H", *RGB[2, 3])),
        np.where((RGB[2, 3] == RGB).all(-1, keepdims=True), 255, RGB),
    ),
    "CMYK": (
        "a.tif",
        tiff(np.concatenate([RGB, ALPHA], -1), photometric=5),
        (255 - RGB.astype(float)) * (255 - ALPHA.astype(float)) / 255,
    ),
    "L*a*b*": ("a.tif", tiff(LAB, photometric=8), 255 * srgb(LAB)),
}


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_colours_arrive_as_they_are_seen(tmp_path, kind):
    name, content, expected = COLOUR_FILES[kind]
    found = read(tmp_path, name, content)
    expected = np.broadcast_to(expected, (5, 7, 3))
    rounding = {"CMYK": 1, "L*a*b*": 2.5}.get(kind, 0.51)  # a colour space in 8 bits
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= rounding


@pytest.mark.parametrize("name", ["red", "#ff0000", "#f00"])
def test_what_is_transparent_shows_the_background(tmp_path, name):
    both = np.concatenate([RGB, ALPHA], -1)
    found = read(tmp_path, "a.png", png(both, colour=6, depth=8), background=name)
    assert np.abs(found - over(RGB, ALPHA, (255, 0, 0))).max() <= 0.51
    grey = np.concatenate([GREY[..., None], ALPHA], -1)
    found = read(tmp_path, "b.png", png(grey, colour=4, depth=8), background=name)
    assert np.abs(found - over(GREY[..., None], ALPHA, (255, 0, 0))).max() <= 0.51


def palette(tmp_path, **options):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 5, 5, 250])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", **options)
    return load_images([tmp_path / "a.png"], size=None).pixels[0, 0].tolist()


def test_a_palette_is_looked_up(tmp_path):
    assert palette(tmp_path) == [[10, 20, 30], [200, 100, 0], [5, 5, 250]]


def test_colours_of_a_palette_may_be_transparent(tmp_path):
    assert palette(tmp_path, transparency=1) == [[10, 20, 30], [255] * 3, [5, 5, 250]]
    half = palette(tmp_path, transparency=bytes([255, 0, 51]))
    assert half == [[10, 20, 30], [255] * 3, [205, 205, 254]]  # 51 is a fifth of 255


def test_one_bit_is_black_or_white(tmp_path):
    image = Image.new("1", (4, 1))
    image.putdata([0, 1, 1, 0])
    image.save(tmp_path / "a.png")
    found = load_images([tmp_path / "a.png"], size=None, channels=1)
    assert found.pixels.ravel().tolist() == [0, 255, 255, 0]


def test_premultiplied_alpha_is_that_of_the_file(tmp_path):
    share = ALPHA.astype(float) / 255
    both = np.concatenate([np.round(RGB * share), ALPHA], -1).astype(np.uint8)
    found = read(tmp_path, "a.tif", tiff(both, photometric=2, extra=1))
    assert np.abs(found - over(RGB, ALPHA)).max() <= 2  # rounded when it was multiplied


def test_floats_have_one_range_for_all_or_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(FLOATS))
    (tmp_path / "b.tif").write_bytes(tiff(FLOATS / 2))
    (tmp_path / "c.tif").write_bytes(tiff(FLOATS, photometric=0))
    (tmp_path / "d.png").write_bytes(png(GREY, colour=0, depth=8))
    with pytest.raises(ValueError, match=r"a\.tif: it holds floats from -.*--range LOW HIGH"):
        load_images([tmp_path / "a.tif"], size=None)
    found = load_images([tmp_path], size=None, channels=1, values=(-1.0, 2.0))
    window = lambda values: np.clip((values.astype(float) + 1) / 3, 0, 1) * 255
    for pixels, expected in zip(
        found.pixels[:3], (window(FLOATS), window(FLOATS / 2), 255 - window(FLOATS)), strict=True
    ):
        np.testing.assert_allclose(pixels[..., 0], expected, atol=1e-3)
    assert np.array_equal(found.pixels[3, ..., 0], GREY)  # 8 bits have their own range


def test_a_range_is_also_that_of_deep_integers(tmp_path):
    found = read(tmp_path, "a.png", png(DEEP % 4096, colour=0, depth=16), values=(0.0, 4095.0))
    np.testing.assert_allclose(found[..., 0], (DEEP % 4096) / 4095 * 255, atol=1e-3)


def jpeg2000(bits):
    """A picture whose header says so many bits: a byte for each component, less one."""
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "JPEG2000", no_jp2=True)
    whole = bytearray(stream.getvalue())
    for component in range(3):
        whole[42 + 3 * component] = bits - 1
    return bytes(whole)


REFUSED = {
    "16-bit JPEG 2000": ("a.j2k", jpeg2000(16), "16 bits for each channel"),
    "16-bit RGB PNG": ("a.png", png(RGB.astype(np.uint16) * 257, colour=2, depth=16), "16 bits"),
    "16-bit RGB TIFF": ("a.tif", tiff(RGB.astype(np.uint16), photometric=2), "16 bits for each"),
    "16-bit grey with alpha": (
        "a.png",
        png(np.stack([DEEP, DEEP], -1), colour=4, depth=16),
        "16 bits",
    ),
    "16-bit PPM": ("a.ppm", portable(RGB.astype(np.uint16) * 257, 65535), "16 bits"),
    "12-bit PPM": ("a.ppm", portable(RGB.astype(np.uint16) * 16, 4095), "12 bits"),
    "signed 8-bit": ("a.tif", tiff(GREY.view(np.int8)), "signed 8-bit"),
    "a transparent 16-bit level": (
        "a.png",
        png(DEEP, colour=0, depth=16, transparent=struct.pack(">H", DEEP[0, 0])),
        "transparent",
    ),
    "float RGB": ("a.tif", tiff(RGB / np.float32(255), photometric=2), "3 samples of 32 bits"),
    "double": ("a.tif", tiff(FLOATS.astype(np.float64)), r"64 bits \(float\), which Pillow does"),
    "half": ("a.tif", tiff(FLOATS.astype(np.float16)), r"16 bits \(float\)"),
    "small numbers": (
        "a.tif",
        tiff(GREY.astype(np.uint32)),
        r"and the range of.*--range",
    ),
    "beyond the range": ("a.tif", tiff(FLOATS + 50), r"from 4[\d.]+ to \S+, and --range is 0 to 1"),
    "far within the range": ("a.tif", tiff(FLOATS / 999), "one shade of grey"),
    "NaN": ("a.tif", tiff(np.where(FLOATS > 2, np.float32("nan"), FLOATS)), "NaN"),
    "text": ("a.png", b"no image", "no picture"),
    "PostScript": ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    "nothing": ("a.png", b"", "no picture"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_shown_rightly_is_refused_by_name(tmp_path, kind, capfd):
    name, content, reason = REFUSED[kind]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.png").write_bytes(png(GREY, colour=0, depth=8))
    values = (0.0, 1.0) if "range" in kind or kind == "NaN" else None
    found = load_images([tmp_path], size=None, values=values)
    assert found.names == ["z.png"]
    [(refused, why)] = found.skipped
    assert refused.endswith(name)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(why)
    assert capfd.readouterr() == ("", "")  # nothing but what the caller says of it


def test_a_uniform_deep_image_is_no_mistake(tmp_path):
    found = read(tmp_path, "a.png", png(np.full((2, 2), 300, np.uint16), colour=0, depth=16))
    np.testing.assert_allclose(found, 300 / 257, atol=1e-5)


IN_MEMORY = {  # modes that are in no file which Pillow reads
    "HSV": ((0, 255, 200), [200, 0, 0]),
    "La": ((50, 100), [205, 205, 205]),
    "RGBa": ((50, 100, 20, 100), [205, 255, 175]),
    "RGBX": ((1, 2, 3, 4), [1, 2, 3]),
    "YCbCr": ((128, 128, 128), [128, 128, 128]),
}


@pytest.mark.parametrize("mode", IN_MEMORY)
def test_a_mode_of_memory_alone_is_shown(mode):
    pixel, expected = IN_MEMORY[mode]
    found = shown(Image.new(mode, (2, 2), pixel), Depth(), View())
    assert np.abs(found.reshape(4, -1).astype(int) - expected).max() <= 1


def test_the_table_has_every_mode_of_pillow():
    assert set(Image.MODES) <= set(MODES)
