"""Heat maps: the scale against numpy's percentiles, and what the pixels of the pictures show."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lrpjax import plots

pytestmark = pytest.mark.usefixtures("quick_compile")

TOL = 1e-12  # float64, one division
RNG_SHAPE = (3, 20, 30)
RED, BLUE, WHITE = (127, 0, 0), (0, 0, 76), (255, 255, 255)  # ends and middle of "seismic"


def draw(shape=RNG_SHAPE, seed=0):
    return np.random.default_rng(seed).standard_t(2, shape)  # heavy tails: some are clipped


def pixels(figure):
    """The figure as uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def centres(figure, panel, rows, columns):
    """The colour in the middle of each of the panel's pictured pixels, uint8 (rows, columns, 3)."""
    image = pixels(figure)
    box = panel.get_window_extent()
    x = box.x0 + (np.arange(columns) + 0.5) / columns * box.width
    y = len(image) - box.y1 + (np.arange(rows) + 0.5) / rows * box.height
    return image[np.ix_(y.astype(int), x.astype(int))]


def texts(figure):
    """Every text drawn, as one string."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_scale_is_the_larger_of_both_percentiles():
    for maps in (draw(), draw() - 3, draw() + 3):
        values, scale = plots.normalise(maps)
        below, above = np.percentile(maps, 0.5), np.percentile(maps, 99.5)
        assert abs(scale - max(abs(below), abs(above))) < TOL * scale
        assert np.abs(values - np.clip(maps / scale, -1, 1)).max() < TOL
        assert (np.abs(values) == 1).any()  # clipped, so that the test sees it


def test_scale_is_symmetric_and_keeps_zero():
    maps = draw()
    maps[0, 0] = 0
    values, scale = plots.normalise(maps)
    mirrored, same = plots.normalise(-maps)
    assert abs(same - scale) < TOL * scale and np.abs(mirrored + values).max() < TOL
    assert not values[0, 0].any() and values.shape == maps.shape
    doubled, twice = plots.normalise(2 * maps)
    assert abs(twice - 2 * scale) < TOL * scale and np.abs(doubled - values).max() < TOL


def test_a_given_scale_is_used():
    maps = draw()
    values, scale = plots.normalise(maps, 4)
    assert scale == 4 and np.abs(values - np.clip(maps / 4, -1, 1)).max() < TOL


def test_zero_and_sparse_maps():
    values, scale = plots.normalise(np.zeros((4, 5)))
    assert scale == 0 and not values.any() and values.shape == (4, 5)
    sparse = np.zeros((40, 50))
    sparse[3, 4] = -0.5  # both percentiles are 0
    values, scale = plots.normalise(sparse)
    assert scale == 0.5 and values[3, 4] == -1 and np.count_nonzero(values) == 1
    tiny = np.zeros((40, 50))
    tiny[0, :20], tiny[1, 0] = 1e-310, 1.0  # a quotient beyond the largest float
    values, _ = plots.normalise(tiny)
    assert values.max() == 1 and np.isfinite(values).all()


@pytest.mark.parametrize(
    ("maps", "scale", "expected"),
    [
        ([[0.0, np.nan]], None, "NaN or infinity"),
        ([[0.0, np.inf]], None, "NaN or infinity"),
        (np.zeros((0, 3)), None, r"shape \(0, 3\)"),
        ([[1.0]], 0, "greater than 0, got 0"),
        ([[1.0]], -2, "greater than 0, got -2"),
        ([[0.0]], -2, "greater than 0, got -2"),
        ([[1.0]], np.nan, "greater than 0, got nan"),
    ],
)
def test_nan_empty_maps_and_scales_below_0_are_refused(maps, scale, expected):
    with pytest.raises(ValueError, match=expected):
        plots.normalise(maps, scale)


def test_heatmap_is_white_at_zero_red_above_and_blue_below():
    relevance = np.array([[2.0, 0.0], [0.0, -2.0]])
    figure = plots.heatmap(relevance, title="lrp-z", caption="a cat")
    shown = centres(figure, figure.axes[0], 2, 2)
    expected = np.array([[RED, WHITE], [WHITE, BLUE]])
    assert np.abs(shown.astype(int) - expected).max() <= 1  # eight bits
    assert {"lrp-z", "\N{MINUS SIGN}2", "0", "2", "relevance"} <= set(texts(figure).split("\n"))
    assert "a cat" in texts(figure) and "max(|P0.5|, |P99.5|) = 2" in texts(figure)


def test_heatmap_sums_over_channels():
    relevance = draw((5, 4, 3))
    first, second = plots.heatmap(relevance), plots.heatmap(relevance.sum(-1))
    assert np.array_equal(pixels(first), pixels(second))
    assert len(np.unique(centres(first, first.axes[0], 5, 4).reshape(-1, 3), axis=0)) > 3


def test_heatmap_of_zeros_is_white_and_says_so():
    figure = plots.heatmap(np.zeros((3, 3)))
    assert (centres(figure, figure.axes[0], 3, 3) == 255).all()
    assert "scale: 0, all zero" in texts(figure)


def test_heatmap_of_few_pixels_says_how_its_scale_was_found():
    sparse = np.zeros((40, 50))
    sparse[3, 4] = -0.5  # both percentiles are 0
    assert "scale: max |R| = 0.5" in texts(plots.heatmap(sparse))


def test_heatmap_states_a_given_scale_without_a_rule_for_it():
    shown = texts(plots.heatmap(draw((4, 4)), scale=3.2e-3))
    assert "scale: 3.2e-3" in shown and "P99.5" not in shown


@pytest.mark.parametrize(
    ("scale", "text"),
    [(0.0321, "0.032"), (6.0, "6"), (128.0, "130"), (6271.0, "6.3e3"), (1e-12, "1.0e-12")],
)
def test_scales_have_two_digits(scale, text):
    assert f"scale: {text}" in texts(plots.heatmap(np.ones((2, 2)), scale=scale)).split("\n")


def test_overlay_shows_the_image_in_grey_where_relevance_is_zero():
    relevance = np.zeros((2, 2))
    relevance[0, 0] = 1
    image = np.zeros((4, 4, 3), np.uint8)  # twice as fine as the map
    image[:2, 2:] = (255, 0, 0)
    image[2:] = 255
    figure = plots.heatmap(relevance, overlay=image)
    shown = centres(figure, figure.axes[0], 2, 2).astype(int)
    assert np.abs(shown[0, 0] - RED).max() <= 1
    red, white = shown[0, 1], shown[1, 0]
    assert np.ptp(red) <= 1 and (white == 255).all() and red[0] < 200
    grey = plots.heatmap(np.zeros((4, 4)), overlay=image[..., 0] / 255)
    assert np.ptp(centres(grey, grey.axes[0], 4, 4).astype(int), axis=-1).max() <= 1


def stated(text, scale):
    """Whether the text is "± 3.2e-3" with the scale's first two digits."""
    return text.startswith("± ") and abs(float(text[2:]) / scale - 1) < 0.05


def panels_of(figure, rows, columns):
    return np.array(figure.axes[: rows * columns], dtype=object).reshape(rows, columns)


@pytest.mark.parametrize("channels", [(), (3,), (1,)])
def test_sheet_has_a_row_for_each_image_and_a_column_for_each_method(channels):
    images = np.random.default_rng(1).integers(0, 256, (2, 6, 5, *channels), dtype=np.uint8)
    maps = {"gradient": draw((2, 6, 5, 3)), "lrp-z": 1000 * draw((2, 6, 5), seed=1)}
    figure = plots.sheet(images, maps, captions=["first\nlogit 1", "second\nlogit 2"])
    panels = panels_of(figure, 2, 3)
    assert [p.get_title() for p in panels[0]] == ["image", "gradient", "lrp-z"]
    assert [p.get_ylabel() for p in panels[:, 0]] == ["first\nlogit 1", "second\nlogit 2"]
    expected = images if len(channels) and channels[0] == 3 else images.reshape(2, 6, 5)
    for row, panel in enumerate(panels[:, 0]):
        assert np.abs(panel.images[0].get_array() * 255 - expected[row]).max() < 1e-4  # float32
    for column, own in enumerate((maps["gradient"].sum(-1), maps["lrp-z"]), 1):
        for row in range(2):
            values, scale = plots.normalise(own[row])
            drawn = panels[row, column].images[0].get_array()
            assert np.abs(drawn - values).max() < TOL
            assert stated(panels[row, column].get_xlabel(), scale)


def test_shared_scale_is_one_for_each_method_over_all_images():
    maps = {"gradient": draw((2, 6, 5)), "lrp-z": draw((2, 6, 5), seed=1)}
    maps["gradient"][1] *= 10
    figure = plots.sheet(np.zeros((2, 6, 5)), maps, shared_scale=True)
    for column, (name, own) in enumerate(maps.items(), 1):
        scale = np.abs(np.percentile(own, (0.5, 99.5))).max()
        panels = panels_of(figure, 2, 3)[:, column]
        drawn = np.stack([panel.images[0].get_array() for panel in panels])
        assert np.abs(drawn - np.clip(own / scale, -1, 1)).max() < TOL
        title, _, last = panels[0].get_title().partition("\n")
        assert title == name and stated(last, scale)


def test_sheet_with_overlay_draws_the_image_below_each_map():
    figure = plots.sheet(np.full((1, 3, 3, 3), 0.5), {"z": np.zeros((1, 3, 3))}, overlay=True)
    panel = panels_of(figure, 1, 2)[0, 1]
    shown = centres(figure, panel, 3, 3).astype(int)
    assert np.ptp(shown) <= 1 and 100 < shown[0, 0, 0] < 250


def test_no_text_of_a_sheet_overlaps_another():
    names = ["lrp-cmp-alpha1-beta0", "a-method-with-a-very-long-name-indeed", "z"]
    maps = {name: draw((3, 6, 8)) for name in names}
    long = "a name that is as long as those of ImageNet's classes"
    captions = [f"photo_{i}.jpeg\ntarget {long}, logit 3.21" for i in range(3)]
    figure = plots.sheet(np.zeros((3, 6, 8)), maps, captions=captions)
    image = pixels(figure)
    drawn = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [text.get_window_extent() for text in drawn]
    assert len(boxes) == 4 + 3 + 9 + 3 + 1 + 1  # headings, rows, scales, colour bar, line below
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0, "cut off"
        assert box.x1 <= image.shape[1] and box.y1 <= image.shape[0], "cut off"
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_names_are_not_read_as_formulas():
    name = "$x_{$.png"  # no valid formula: drawn as one, it raises
    pixels(plots.heatmap(np.ones((2, 2)), title=name, caption=name))
    figure = plots.sheet(np.zeros((1, 2, 2)), {name: np.ones((1, 2, 2))}, captions=[name])
    pixels(figure)
    assert texts(figure).replace(r"\$", "$").split("\n").count(name) == 2


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: plots.heatmap(np.zeros(4)), r"\(H, W, C\) or \(H, W\), got \(4,\)"),
        (lambda: plots.heatmap(np.full((2, 2), np.nan)), "NaN or infinity"),
        (lambda: plots.heatmap(np.ones((2, 2)), overlay=np.ones((2, 2, 4))), r"got \(2, 2, 4\)"),
        (lambda: plots.heatmap(np.ones((2, 2)), overlay=np.full((2, 2), 7.0)), "from 7 to 7"),
        (lambda: plots.sheet(np.zeros((0, 2, 2)), {}), "no images"),
        (lambda: plots.sheet(np.zeros((1, 2)), {"z": np.zeros((1, 2, 2))}), r"\(N, H, W, 3\)"),
        (lambda: plots.sheet(np.zeros((1, 2, 2)), {"z": np.zeros((2, 2))}), r"\(N, H, W, C\)"),
        (lambda: plots.sheet(np.zeros((1, 2, 2)), {"z": np.zeros((3, 2, 2))}), "3 of z"),
        (
            lambda: plots.sheet(np.zeros((1, 2, 2)), {"z": np.ones((1, 2, 2))}, captions=["", ""]),
            "2 of the captions",
        ),
    ],
)
def test_what_cannot_be_drawn(call, expected):
    with pytest.raises(ValueError, match=expected):
        call()
