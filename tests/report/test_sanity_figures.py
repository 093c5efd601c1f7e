"""Figures of the sanity checks: what is drawn is what the rows and the maps say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from lrpjax import plots
from lrpjax.report.grids import cascade_panels, two_class_panels
from lrpjax.sanity import Sanity

pytestmark = pytest.mark.usefixtures("quick_compile")

TOL = 1e-12  # float64, one division
LAYERS = ["fc6", "fc5", "conv4", "conv3"]


def mprt(curves, order="output", similarity="ssim", layers=LAYERS, check="mprt", **more):
    """Rows with bands of 0.1 below and 0.2 above the medians; None stays None."""
    rows = []
    for method, medians in curves.items():
        for layer, median in zip(layers, medians, strict=True):
            gone = median is None
            values = [None, None, None] if gone else [median, median - 0.1, median + 0.2]
            row = {"check": check, "method": method, "order": order, "layer": layer}
            row |= {
                "similarity": similarity,
                "values": values,
                "dropped": 3 * gone,
                "median": median,
            }
            rows.append({**row, "low": values[1], "high": values[2], **more})
    return rows


def logit(values, similarity="ssim", **more):
    rows = []
    for method, own in values.items():
        kept = [v for v in own if v is not None]
        row = {"check": "random-logit", "method": method, "similarity": similarity, "values": own}
        row |= {"dropped": len(own) - len(kept), "median": float(np.median(kept)) if kept else None}
        low, high = (row["median"] - 0.03, row["median"] + 0.02) if len(kept) > 1 else (None, None)
        rows.append({**row, "low": low, "high": high, **more})
    return rows


def randomisation(rows, **options):
    return plots.randomisation(Sanity({}, rows), **options)


def random_logit(rows, **options):
    return plots.random_logit(Sanity({}, rows), **options)


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines()}


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def texts(figure):
    """The texts that are drawn: a tick out of view keeps its label."""
    ticks = [tick for p in figure.axes for axis in (p.xaxis, p.yaxis) for tick in axis.majorTicks]
    hidden = [t.label1 for t in ticks if not _in_view(t)]
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [t for t in shown if t not in hidden]


def _in_view(tick):
    low, high = sorted(tick.get_view_interval())
    return low <= tick.get_loc() <= high


def overlapping(figure):
    """Pairs of texts that touch, and texts that leave the figure."""
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(drawn(figure))]
    width, height = figure.canvas.get_width_height()
    cut = [s for s, b in boxes if b.x0 < 0 or b.y0 < 0 or b.x1 > width or b.y1 > height]
    pairs = [(s, t) for i, (s, b) in enumerate(boxes) for t, c in boxes[:i] if b.overlaps(c)]
    return cut + pairs


# Parameter randomisation


def test_a_cascade_starts_at_the_trained_network_and_follows_the_rows():
    figure = randomisation(mprt({"lrp-z": [0.8, 0.5, 0.3, 0.2]}))
    (panel,) = figure.axes
    (line,) = panel.get_lines()
    assert line.get_ydata().tolist() == [1, 0.8, 0.5, 0.3, 0.2]
    assert line.get_xdata().tolist() == [0, 1, 2, 3, 4]
    assert ticks(panel.xaxis) == ["trained", *LAYERS]
    (band,) = panel.collections
    corners = {(x, round(y, 9)) for x, y in band.get_paths()[0].vertices}
    assert {(0, 1), (1, 0.7), (1, 1.0), (4, 0.1), (4, 0.4)} <= corners
    assert "median of 3 images" in panel.get_ylabel() and "99 %" in panel.get_ylabel()


def test_single_layers_have_no_trained_network_in_front():
    rows = mprt({"lrp-z": [0.8, 0.5, 0.3, 0.2]}, order="single")
    (panel,) = randomisation(rows).axes
    assert panel.get_lines()[0].get_ydata().tolist() == [0.8, 0.5, 0.3, 0.2]
    assert ticks(panel.xaxis) == LAYERS


def test_one_panel_for_each_order_and_similarity():
    curve = {"lrp-z": [0.8, 0.5, 0.3, 0.2]}
    rows = [
        row
        for order in ("output", "input", "single")
        for kind in ("ssim", "spearman")
        for row in mprt(curve, order, kind, LAYERS if order != "input" else LAYERS[::-1])
    ]
    figure = randomisation(rows)
    found = [(p.get_ylabel().partition(" ")[0], p.get_title(loc="left")) for p in figure.axes]
    titles = [
        "randomised from the output to the input",
        "randomised from the input to the output",
        "one layer randomised at a time",
    ]
    assert found == [(kind, title) for kind in ("SSIM", "Spearman") for title in titles]
    assert ticks(figure.axes[1].xaxis) == ["trained", *LAYERS[::-1]]
    (first, *_), one = figure.axes, randomisation(rows, similarity="spearman")
    assert len(one.axes) == 3 and all("Spearman" in p.get_ylabel() for p in one.axes)
    assert "either sign" in first.get_ylabel()


def test_the_legend_goes_from_the_most_to_the_least_similar_at_the_last_layer():
    curves = {
        "low": [0.9, 0.9, 0.9, 0.1],
        "ends": [0.5, 0.5, 0.5, None],
        "high": [0.2, 0.2, 0.2, 0.8],
        "middle": [0.6, 0.6, 0.6, 0.4],
    }
    (panel,) = randomisation(mprt(curves)).axes
    assert legend(panel) == ["high", "middle", "low", "ends"]


def test_a_median_of_none_is_a_gap_and_is_counted():
    rows = mprt({"deconv": [0.8, None, 0.3, 0.2], "lrp-z": [0.9, 0.8, 0.7, 0.6]})
    rows[3]["dropped"] = 1
    (panel,) = randomisation(rows).axes
    y = lines(panel)["deconv"].get_ydata()
    assert np.isnan(y).tolist() == [False, False, True, False, False]
    assert panel.get_xlabel().endswith("without structure, left out: up to 3 of deconv")
    (panel,) = randomisation(mprt({"lrp-z": [0.9, 0.8, 0.7, 0.6]})).axes
    assert "left out" not in panel.get_xlabel()


def test_nothing_but_gaps():
    (panel,) = randomisation(mprt({"deconv": [None] * 4}, "single")).axes
    assert np.isnan(panel.get_lines()[0].get_ydata()).all() and panel.get_ylim() == (-0.05, 1.05)


def test_a_layer_that_a_method_was_not_measured_at_is_a_gap():
    rows = mprt({"lrp-z": [0.9, 0.8, 0.7, 0.6]})
    rows += mprt({"gradient": [0.5, 0.4]}, layers=["fc6", "conv4"])
    (panel,) = randomisation(rows).axes
    y = lines(panel)["gradient"].get_ydata()
    assert y[[0, 1, 3]].tolist() == [1, 0.5, 0.4] and np.isnan(y[[2, 4]]).all()


def test_equal_curves_share_a_line_unless_their_bands_differ():
    curve = [0.8, 0.5, 0.3, 0.2]
    rows = mprt({"lrp-zplus": curve, "excitation-bp": curve, "lrp-z": curve})
    rows[-1]["high"] += 0.01  # of lrp-z
    (panel,) = randomisation(rows).axes
    assert sorted(legend(panel)) == ["lrp-z", "lrp-zplus\n= excitation-bp"]
    assert len(panel.get_lines()) == len(panel.collections) == 2


def test_twenty_methods_have_twenty_styles_which_they_keep_in_every_panel():
    curves = {f"m{i}": [0.9 - i / 40, 0.5, 0.3, 0.01 * i] for i in range(20)}
    figure = randomisation(mprt(curves) + mprt(curves, "input", layers=LAYERS[::-1]))
    look = lambda line: (to_hex(line.get_color()), line.get_marker(), str(line._dash_pattern))
    first, second = ({k: look(v) for k, v in lines(p).items()} for p in figure.axes)
    assert len(set(first.values())) == 20 and first == second


def test_controls_are_dashed_and_grey_and_told_apart():
    rows = mprt({"lrp-z": [0.8, 0.5, 0.3, 0.2]})
    controls = {f"noise {i}": [0.1 * i] * 4 for i in range(3)}
    (panel,) = randomisation(rows + mprt(controls, control=True)).axes
    found = lines(panel)
    grey = [found[f"noise {i} (control)"] for i in range(3)]
    for line in grey:
        assert len({*to_hex(line.get_color())[1::2]}) == 1 and line.is_dashed()
    assert len({(line.get_color(), line.get_marker()) for line in grey}) == 3
    assert not found["lrp-z"].is_dashed() and to_hex(found["lrp-z"].get_color()) == "#0072b2"


def test_a_method_that_equals_a_control_shares_the_methods_line():
    curve = [0.8, 0.5, 0.3, 0.2]
    rows = mprt({"noise": curve}, control=True) + mprt({"lrp-z": curve})
    (panel,) = randomisation(rows).axes
    assert legend(panel) == ["lrp-z\n= noise (control)"] and not panel.get_lines()[0].is_dashed()


def test_negative_similarities_are_in_view():
    rows = mprt({"lrp-z": [0.8, 0.0, -0.3, -0.7]}, similarity="pearson")
    (panel,) = randomisation(rows).axes
    low, high = panel.get_ylim()
    assert low < -0.8 and high == 1.05  # the lower end of the band is -0.8


def test_rows_without_an_interval_have_no_band():
    rows = [{**row, "low": None, "high": None} for row in mprt({"lrp-z": [0.8, 0.5, 0.3, 0.2]})]
    (panel,) = drawn(randomisation(rows)).axes
    assert panel.get_lines()[0].get_ydata().tolist() == [1, 0.8, 0.5, 0.3, 0.2]


def test_smooth_randomisation_is_drawn_and_other_checks_are_passed_over():
    rows = mprt({"lrp-z (smooth)": [0.8, 0.5, 0.3, 0.2]}, check="smooth-mprt")
    (panel,) = randomisation(rows + logit({"gradient": [0.1, 0.2]})).axes
    assert legend(panel) == ["lrp-z (smooth)"]


@pytest.mark.parametrize("layers", [7, 54])
def test_no_text_of_the_randomisation_overlaps(layers):
    names = [f"block{i}" for i in range(layers)]
    curves = {f"lrp-alpha{i}-beta{i - 1}": [0.5 / i] * layers for i in range(1, 21)}
    rows = mprt(curves, layers=names) + mprt(curves, "single", layers=names)
    rows[0]["dropped"] = rows[-1]["dropped"] = 1
    figure = drawn(randomisation(rows))
    sloping = [label for p in figure.axes for label in p.get_xticklabels()]
    for label in sloping if layers == 7 else []:  # their boxes overlap, the letters do not
        label.set_visible(False)
    assert overlapping(figure) == []


# Random logit


def test_boxes_hold_the_middle_half_and_dots_are_the_images():
    values = np.random.default_rng(0).beta(3, 2, 40).tolist()
    (panel,) = random_logit(logit({"lrp-z": values})).axes
    (box,) = panel.patches
    low, high = np.percentile(values, [25, 75])
    assert abs(box.get_x() - low) < TOL and abs(box.get_x() + box.get_width() - high) < TOL
    (dots,) = panel.get_lines()
    assert dots.get_xdata().tolist() == values
    assert np.abs(dots.get_ydata()).max() < box.get_height() / 2
    assert len(set(dots.get_ydata())) == 40
    segments = [s.get_segments()[0] for s in panel.collections]
    whiskers, interval, median = ([(p[0], p[1]) for p in s] for s in segments)
    reach = [v for v in values if low - 1.5 * (high - low) <= v <= high + 1.5 * (high - low)]
    assert [x for x, _ in whiskers] == [min(reach), max(reach)]
    middle = np.median(values)
    assert np.abs([x for x, _ in interval] - middle - [-0.03, 0.02]).max() < TOL
    assert {x for x, _ in median} == {middle}


def test_the_most_similar_is_on_top_and_one_without_values_below():
    rows = logit({"b": [0.5, 0.6], "none": [None, None], "c": [0.2, 0.1], "a": [0.9, None, 0.8]})
    (panel,) = random_logit(rows).axes
    assert ticks(panel.yaxis) == ["a (2 images)", "b", "c", "none (0 images)"]
    low, high = panel.get_ylim()
    assert low > high  # the first is on top
    assert [dots.get_xdata().tolist() for dots in panel.get_lines()] == [
        [0.9, 0.8],
        [0.5, 0.6],
        [0.2, 0.1],
    ]
    assert "no map has structure" in [t.get_text() for t in panel.texts]


def test_controls_are_grey_and_hatched():
    rows = logit({"lrp-z": [0.5, 0.6]}) + logit({"noise": [0.1, 0.2]}, control=True)
    figure = random_logit(rows)
    (panel,) = figure.axes
    method, control = panel.patches
    assert ticks(panel.yaxis) == ["lrp-z", "noise (control)"]
    assert control.get_hatch() and not method.get_hatch()
    for colour in (control.get_facecolor(), control.get_edgecolor()):
        assert np.ptp(colour[:3]) == 0
    assert np.ptp(method.get_facecolor()[:3]) > 0.1
    named = lambda f: [t.get_text() for t in f.legends[0].get_texts()]
    assert "of a control" in named(figure)
    assert "of a control" not in named(random_logit(rows[:1]))


@pytest.mark.parametrize(
    ("similarity", "words", "same"),
    [
        ("ssim", "SSIM (either sign)", "the same map or its negative"),
        ("ssim-standard", "SSIM of", "the same map"),
        ("spearman", "Spearman", "the same map"),
        ("pearson", "Pearson", "the same map"),
        ("cosine", "cosine", "the same map"),
        ("hog", "HOG", "the same map"),
        ("of my own", "of my own", "the same map"),
    ],
)
def test_the_axis_says_what_one_means(similarity, words, same):
    (panel,) = random_logit(logit({"lrp-z": [0.5, -0.6]}, similarity)).axes
    first, second = panel.get_xlabel().split("\n")
    assert words in first and "2 images" in first
    assert second == f"1: the map of another class is {same}"
    low, high = panel.get_xlim()
    assert low < -0.6 and high > 1


def test_one_panel_for_each_similarity_each_in_its_own_order():
    rows = logit({"a": [0.9, 0.8], "b": [0.5, 0.6]})
    rows += logit({"a": [0.1, 0.2], "b": [0.5, 0.6]}, "spearman")
    assert [ticks(p.yaxis) for p in random_logit(rows).axes] == [["a", "b"], ["b", "a"]]
    assert [row["method"] for row in rows] == ["a", "b", "a", "b"]  # not sorted in place


def test_a_single_image_has_no_interval():
    (panel,) = drawn(random_logit(logit({"lrp-z": [0.5]}))).axes
    assert len(panel.collections) == 2  # whiskers and median


def test_no_text_of_the_random_logit_overlaps():
    rows = logit({f"a-method-with-a-name-{i}": [i / 20, 0.5, None] for i in range(20)})
    rows += logit({"the input itself": [0.9, 0.9, 0.9]}, control=True)
    assert overlapping(random_logit(rows)) == []


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: randomisation([]), "mprt and smooth-mprt, but these are of nothing"),
        (lambda: randomisation(logit({"a": [1]})), "but these are of random-logit"),
        (lambda: random_logit([]), "random-logit, but these are of nothing"),
        (lambda: random_logit(mprt({"a": [1] * 4})), "but these are of mprt"),
        (
            lambda: randomisation(mprt({"a": [1] * 4}), similarity="hog"),
            "no rows of 'hog', they have ssim",
        ),
    ],
)
def test_rows_that_cannot_be_drawn(call, expected):
    with pytest.raises(ValueError, match=expected):
        call()


# Grids of maps


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_t(2, shape)  # heavy tails: some are clipped


def scaled(relevance):
    """By the paper: over the larger of both percentiles, clipped."""
    scale = np.abs(np.percentile(relevance, [0.5, 99.5])).max()
    return np.clip(relevance / scale, -1, 1), scale


def image_of(panel):
    return np.asarray(panel.images[-1].get_array())


def stated(panel, mark="± "):
    assert panel.get_xlabel().startswith(mark)
    return float(panel.get_xlabel().removeprefix(mark))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_cascade_has_a_row_for_each_method_and_a_column_for_each_stop(channels):
    picture = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    maps = {"lrp-z": draw(3, 8, 6, *channels), "gradient": 1e-6 * draw(3, 8, 6, seed=2)}
    panels = cascade_panels(picture, maps, ["trained", "fc6", "fc5"], name="a $frog$")
    assert panels.shape == (2, 4)
    assert [p.get_title() for p in panels[0]] == ["image", "trained", "fc6", "+ fc5"]
    assert [p.get_ylabel() for p in panels[:, 0]] == ["lrp-z", "gradient"]
    assert drawn(panels.flat[0].figure).get_suptitle().replace(r"\$", "$") == "a $frog$"
    for row, own in zip(panels, maps.values(), strict=True):
        assert np.abs(image_of(row[0]) * 255 - picture).max() < 1e-4  # float32
        for panel, relevance in zip(row[1:], own, strict=True):
            relevance = relevance.sum(-1) if relevance.ndim == 3 else relevance
            values, scale = scaled(relevance)
            assert np.abs(image_of(panel) - values).max() < TOL
            assert abs(stated(panel) / scale - 1) < 0.05  # two digits
            assert panel.images[-1].get_clim() == (-1, 1)


def test_maps_that_show_nothing_are_grey_with_a_word():
    maps = draw(5, 4, 4)
    maps[1], maps[2, 0, 0], maps[3, 0, 0] = 0, np.nan, np.inf
    panels = cascade_panels(np.zeros((4, 4)), {"m": maps}, ["trained", *"abcd"])[0, 1:]
    words = [[t.get_text() for t in panel.texts] for panel in panels]
    assert words == [[], ["zero"], ["none"], ["none"], []]
    for panel in panels[1:4]:
        (shade,) = set(image_of(panel).ravel())
        assert 0.7 < shade < 0.95 and panel.images[-1].get_cmap().name == "gray"
        assert image_of(panel).shape == (4, 4) and not panel.get_xlabel()


def test_two_classes_have_their_maps_and_the_difference_of_their_sizes():
    pictures = np.random.default_rng(1).random((2, 8, 6, 3))
    maps = {"lrp-z": draw(2, 3, 8, 6, 3), "gradient": draw(2, 3, 8, 6, seed=2)}
    names = [["cat", "dog", "pen"], ["zebra", "elephant", "cup"]]
    panels = two_class_panels(pictures, maps, names)
    assert panels.shape == (4, 5)
    assert [p.get_ylabel() for p in panels[:, 0]] == ["lrp-z", "gradient"] * 2
    for i in range(2):
        headings = [p.get_title().partition("\n")[0] for p in panels[2 * i]]
        assert headings == ["image", *names[i], "difference"]
        assert not any(p.get_title() for p in panels[2 * i + 1])
    apart = []
    for i in range(2):
        for j, own in enumerate(maps.values()):
            row = panels[2 * i + j]
            assert np.abs(image_of(row[0]) - pictures[i]).max() < 1e-6  # float32
            for panel, relevance in zip(row[1:4], own[i], strict=True):
                relevance = relevance.sum(-1) if relevance.ndim == 3 else relevance
                assert np.abs(image_of(panel) - scaled(relevance)[0]).max() < TOL
            difference = np.abs(scaled(own[i, 0])[0]) - np.abs(scaled(own[i, 1])[0])
            apart.append(difference.mean(-1) if difference.ndim == 3 else difference)
            assert row[4].get_xlabel() == f"L1 {np.abs(difference).mean():.6f}"
    scale = scaled(np.stack(apart))[1]
    for row, difference in zip(panels, apart, strict=True):
        assert np.abs(image_of(row[4]) - np.clip(difference / scale, -1, 1)).max() < TOL


def test_maps_equal_up_to_size_and_sign_have_no_difference():
    """Only rounding, which must not be blown up to a picture."""
    a, b = draw(1, 9, 9), draw(1, 9, 9, seed=1)
    panels = two_class_panels(
        np.zeros((1, 9, 9)), {"m": np.stack([a, -3 * a, b], 1)}, "A B C".split()
    )
    assert np.abs(image_of(panels[0, 4])).max() < 1e-6
    assert panels[0, 4].get_xlabel() == "L1 0.000000"
    panels = two_class_panels(np.zeros((1, 9, 9)), {"m": np.stack([a, a, b], 1)}, "A B C".split())
    assert [t.get_text() for t in panels[0, 4].texts] == ["zero"]
    assert panels[0, 4].get_xlabel() == "L1 0.000000"


def test_a_small_difference_is_paler_than_a_large_one():
    a, b = draw(1, 9, 9), draw(1, 9, 9, seed=1)
    near = np.stack([a, a * (1 + 1e-3 * b), b], 1)
    far = np.stack([a, b, b], 1)
    panels = two_class_panels(np.zeros((1, 9, 9)), {"near": near, "far": far}, ["a", "b", "c"])
    sizes = [np.abs(image_of(row[4])).max() for row in panels]
    assert sizes[1] == 1 and sizes[0] < 0.05


def test_names_that_all_images_share_stand_once():
    maps = {"m": draw(3, 3, 4, 4), "n": draw(3, 3, 4, 4)}
    panels = two_class_panels(np.zeros((3, 4, 4)), maps, (281, 207, 3))
    assert [p.get_title() for p in panels[0]][1:4] == ["281", "207", "3"]
    assert not any(p.get_title() for p in panels[1:].flat)


def test_distances_that_are_given_are_written():
    maps = {"m": draw(2, 3, 4, 4), "n": draw(2, 3, 4, 4)}
    given = {"n": [0.25, None], "m": np.array([0.000371, np.nan])}
    panels = two_class_panels(np.zeros((2, 4, 4)), maps, ["a", "b", "c"], distances=given)
    assert [p.get_xlabel() for p in panels[:, 4]] == ["L1 0.000371", "L1 0.250000", "", ""]


def test_a_map_that_is_not_finite_has_no_difference():
    maps = draw(2, 3, 4, 4)
    maps[0, 1, 0, 0], maps[1, 2] = np.nan, 0
    panels = two_class_panels(np.zeros((2, 4, 4)), {"m": maps}, ["a", "b", "c"])
    words = [[t.get_text() for p in row for t in p.texts] for row in panels]
    assert words == [["none", "none"], ["zero"]]  # map b and the difference; the random class
    assert not panels[0, 4].get_xlabel() and stated(panels[1, 4], "L1 ") > 0


def test_no_text_of_the_grids_overlaps():
    maps = {f"lrp-cmp-alpha{i}-beta{i}": draw(7, 6, 8) for i in range(8)}
    stops = ["trained", "fc3", "conv5_3:relu", *(f"block{i}_2" for i in range(4))]
    assert overlapping(cascade_panels(np.zeros((6, 8)), maps, stops, name="n").flat[0].figure) == []
    maps = {f"deeplift-reveal-cancel-{i}": draw(2, 3, 6, 8) for i in range(3)}
    names = [["Persian cat", "King Charles spaniel", "c"], ["a", "African bush elephant", "c"]]
    panels = two_class_panels(np.zeros((2, 6, 8, 3)), maps, names)
    assert overlapping(panels.flat[0].figure) == []


ONE = np.zeros((4, 4))
TWO = np.zeros((2, 4, 4))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: cascade_panels(ONE, {}, ["trained"]), "no maps"),
        (
            lambda: cascade_panels(ONE, {"z": draw(2, 4, 4)}, ["trained"]),
            "1 stops, but 2 maps of z",
        ),
        (
            lambda: cascade_panels(ONE, {"z": draw(4, 4)}, ["trained"]),
            r"\(S, H, W, C\) or \(S, H, W\)",
        ),
        (
            lambda: cascade_panels(TWO, {"z": draw(1, 4, 4)}, ["trained"]),
            r"\(H, W, 3\) or \(H, W\)",
        ),
        (lambda: two_class_panels(TWO[:0], {"z": draw(0, 3, 4, 4)}, "abc"), "no images"),
        (lambda: two_class_panels(TWO, {}, list("abc")), "no maps"),
        (lambda: two_class_panels(TWO, {"z": draw(2, 2, 4, 4)}, list("abc")), r"\(2, 2, 4, 4\)"),
        (lambda: two_class_panels(TWO, {"z": draw(3, 3, 4, 4)}, list("abc")), r"of z have \(3,"),
        (lambda: two_class_panels(TWO, {"z": draw(2, 3, 4, 4)}, list("ab")), r"shape \(2,\)"),
        (lambda: two_class_panels(TWO, {"z": draw(2, 3, 4, 4)}, "abc"), r"shape \(\)"),
        (
            lambda: two_class_panels(
                TWO, {"z": draw(2, 3, 4, 4)}, list("abc"), distances={"z": [1.0]}
            ),
            "2 images, but 1 distances of z",
        ),
        (
            lambda: two_class_panels(TWO, {"z": draw(2, 3, 4, 4)}, list("abc"), distances={}),
            "2 images, but 0 distances of z",
        ),
    ],
)
def test_grids_that_cannot_be_drawn(call, expected):
    with pytest.raises(ValueError, match=expected):
        call()
