import errno
import os

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from pixel_cnn_pp import plots


def slow_grid(images, num_columns, padding, scale):
    """RGB images with 256 levels, laid out pixel by pixel on white."""
    num_images, height, width, _ = images.shape
    num_rows = -(-num_images // num_columns)
    picture = np.full(
        (
            scale * (num_rows * (height + padding) - padding),
            scale * (num_columns * (width + padding) - padding),
            3,
        ),
        255,
        np.uint8,
    )
    for n, h, w in np.ndindex(num_images, height, width):
        top = scale * (n // num_columns * (height + padding) + h)
        left = scale * (n % num_columns * (width + padding) + w)
        picture[top : top + scale, left : left + scale] = images[n, h, w]
    return picture


def random_images(*shape, num_levels=256):
    return np.random.RandomState(0).randint(num_levels, size=shape).astype(np.uint8)


@pytest.mark.parametrize("num_columns", [1, 3, 7])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_grid_is_row_by_row_on_white(num_columns, padding, scale):
    images = random_images(5, 4, 3, 3)
    picture = plots.image_grid(images, num_columns, padding=padding, scale=scale)
    expected = slow_grid(images, num_columns, padding, scale)
    np.testing.assert_array_equal(picture, expected, strict=True)


def test_padding_is_one_and_scale_is_one_unless_given():
    images = random_images(5, 4, 3, 3)
    expected = slow_grid(images, num_columns=2, padding=1, scale=1)
    np.testing.assert_array_equal(plots.image_grid(images, 2), expected)


@pytest.mark.parametrize("num_channels", [1, 2, 4])
def test_what_is_not_rgb_is_grey_by_its_first_channel(num_channels):
    images = random_images(2, 4, 3, num_channels)
    expected = plots.image_grid(np.repeat(images[..., :1], 3, axis=-1), 2)
    np.testing.assert_array_equal(plots.image_grid(images, 2), expected)


@pytest.mark.parametrize("num_levels", [2, 5, 17, 100, 256, 1000])
def test_levels_are_stretched_from_black_to_white(num_levels):
    levels = np.arange(num_levels)
    picture = plots.image_grid(levels[None, None, :, None], 1, num_levels=num_levels)
    # The nearest of 256 greys; a half, as 127.5 for the middle one of 5 levels, is rounded up.
    expected = np.floor(255 * levels / (num_levels - 1) + 0.5)
    np.testing.assert_array_equal(picture[0], np.stack([expected] * 3, -1))
    assert (picture.min(), picture.max()) == (0, 255)


def test_a_grid_leaves_the_images_as_they_were():
    images = random_images(3, 4, 3, 3)
    before = images.copy()
    plots.image_grid(images, 2)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 3, 1), np.uint8)}, r"`images` .*\[N, H, W, C\].*\(4, 3, 1\)"),
        ({"images": np.zeros((0, 4, 3, 1), np.uint8)}, r"`images` .*not be empty.*\(0, 4, 3, 1\)"),
        ({"images": np.zeros((2, 4, 3, 1))}, r"`images` must be integers. Received: float64"),
        ({"images": np.full((2, 4, 3, 1), 17)}, r"\[0, 16\]. Received: values in \[17, 17\]"),
        ({"images": np.full((2, 4, 3, 1), -1)}, r"\[0, 16\]. Received: values in \[-1, -1\]"),
        ({"num_columns": 0}, r"`num_columns` .*at least 1. Received: num_columns=0"),
        ({"num_levels": 1}, r"`num_levels` .*at least 2. Received: num_levels=1"),
        ({"padding": -1}, r"`padding` .*at least 0. Received: padding=-1"),
        ({"scale": 1.5}, r"`scale` must be a whole number .*Received: scale=1.5"),
    ],
)
def test_a_grid_says_in_one_line_what_is_wrong(change, message):
    arguments = {"images": np.zeros((2, 4, 3, 1), np.uint8), "num_columns": 2, "num_levels": 17}
    plots.image_grid(**arguments)
    with pytest.raises(ValueError, match=message) as caught:
        plots.image_grid(**(arguments | change))
    assert "\n" not in str(caught.value)


SETS = {"first": [1.0, 2.0, 2.0, 4.0], "second": [3.0, 9.0]}


def test_histograms_show_the_share_of_each_set_over_bins_that_they_share(monkeypatch):
    drawn = []
    stairs = Axes.stairs

    def kept_stairs(axes, values, edges, **options):
        drawn.append((axes.get_subplotspec().colspan.start, options["label"], values, edges))
        return stairs(axes, values, edges, **options)

    monkeypatch.setattr(Axes, "stairs", kept_stairs)
    panels = [("a", "bits/dim", SETS), ("b", "bits", {"third": np.zeros(5)})]
    plots.histograms(panels, num_bins=4)
    assert [item[:2] for item in drawn] == [(0, "first"), (0, "second"), (1, "third")]
    # From 1 to 9 in four bins; the second one begins with the 3, the last one ends with the 9.
    for i in (0, 1):
        np.testing.assert_array_equal(drawn[i][3], [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(drawn[0][2], [3 / 4, 1 / 4, 0, 0])
    np.testing.assert_array_equal(drawn[1][2], [0, 1 / 2, 0, 1 / 2])
    assert drawn[2][2].sum() == 1


def test_histograms_are_a_picture_with_a_panel_beside_the_other():
    one = plots.histograms([("a", "bits/dim", SETS)])
    three = plots.histograms([(title, "bits/dim", SETS) for title in "abc"])
    assert (one.dtype, one.ndim, one.shape[-1]) == (np.uint8, 3, 3)
    assert three.shape == (one.shape[0], 3 * one.shape[1], 3)
    # White at its edges, and in more colours than grey.
    assert (one[0] == 255).all() and (one[..., 0] != one[..., 2]).any()
    np.testing.assert_array_equal(one, plots.histograms([("a", "bits/dim", SETS)]))


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_histograms_of_what_is_no_number_name_the_set(values):
    panels = [("a", "bits/dim", {**SETS, "third": np.array(values)})]
    with pytest.raises(ValueError, match=r"must be finite, and at least one. Received: .* third"):
        plots.histograms(panels)


def test_histograms_of_nothing_are_refused():
    with pytest.raises(ValueError, match="`panels` must not be empty"):
        plots.histograms([])


# Two runs of one curve, a single run of the other.
CURVES = {"two": ([0, 1, 2, 3], [[9, 4, 3, 2], [9, 6, 3, 1]]), "one": ([1, 3], [[8, 5]])}


def test_curves_are_means_in_a_band_from_the_least_to_the_greatest(monkeypatch):
    drawn, bands, panels = {}, [], {}
    plot, fill_between = Axes.plot, Axes.fill_between

    def kept_plot(axes, xs, ys, label, marker):
        place = axes.get_subplotspec().colspan.start
        drawn[place, label] = list(xs), list(ys)
        panels[place] = axes
        assert (marker is not None) == (len(xs) == 1)  # a point alone makes no line
        return plot(axes, xs, ys, label=label, marker=marker)

    def kept_fill_between(axes, xs, low, high, **options):
        bands.append((list(xs), list(low), list(high)))
        return fill_between(axes, xs, low, high, **options)

    monkeypatch.setattr(Axes, "plot", kept_plot)
    monkeypatch.setattr(Axes, "fill_between", kept_fill_between)
    plots.curves([("a", "step", "bits/dim", CURVES), ("b", "step", "s", {"flat": ([1], [[2]])})])
    assert drawn == {
        (0, "two"): ([0, 1, 2, 3], [9, 5, 3, 1.5]),
        (0, "one"): ([1, 3], [8, 5]),
        (1, "flat"): ([1], [2]),
    }
    assert bands[0] == ([0, 1, 2, 3], [9, 4, 3, 1], [9, 6, 3, 2])
    labels = [(axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) for axes in panels.values()]
    assert labels == [("a", "step", "bits/dim"), ("b", "step", "s")]
    # Behind the first quarter lie 5, 3, 1.5 and, of two points, both; 0.05 of that above and below.
    assert panels[0].get_ylim() == pytest.approx((1.5 - 0.05 * 6.5, 8 + 0.05 * 6.5))


def test_curves_are_a_picture_with_a_panel_beside_the_other():
    one = plots.curves([("a", "step", "bits/dim", CURVES)])
    two = plots.curves([(title, "step", "bits/dim", CURVES) for title in "ab"])
    assert (one.dtype, one.ndim, one.shape[-1]) == (np.uint8, 3, 3)
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3)


@pytest.mark.parametrize("ys", [[], [[]], [1.0, 2.0], [[1.0]], [[1.0, np.nan]]])
def test_curves_of_what_are_no_numbers_at_their_points_name_the_curve(ys):
    with pytest.raises(ValueError, match=r"at 2 points of third in a"):
        plots.curves([("a", "step", "bits/dim", {**CURVES, "third": ([1, 2], ys)})])


def test_curves_of_nothing_are_refused():
    with pytest.raises(ValueError, match="`panels` must not be empty"):
        plots.curves([])


def test_bars_are_as_high_as_their_numbers():
    def heights(numbers):
        """How many pixels of a bar's colour each group has."""
        groups = {name: {"bar": number} for name, number in numbers.items()}
        picture = plots.bars([("title", "bytes", groups)]).astype(int)
        blue = picture[..., 2] - picture[..., 0] > 80
        middle = np.flatnonzero(blue[-80])  # below the key, above the names
        left, right = middle[: len(middle) // 2], middle[len(middle) // 2 :]
        return blue[:, int(left.mean())].sum(), blue[:, int(right.mean())].sum()

    one, other = heights({"a": 2.0, "b": 1.0})
    assert abs(one / other - 2) < 0.05
    with pytest.raises(ValueError, match="Bars must be finite"):
        plots.bars([("title", "bytes", {"a": {"bar": np.nan}})])
    with pytest.raises(ValueError, match="must not be empty"):
        plots.bars([])


def test_grids_do_not_wait_for_matplotlib(run_python):
    code = "import sys, pixel_cnn_pp.plots; print('matplotlib' in sys.modules)"
    assert run_python(code) == "False\n"


def test_a_png_holds_the_picture_exactly(tmp_path):
    picture = random_images(5, 4, 3)
    path = tmp_path / "missing" / "folders" / "samples.png"
    plots.save_png(path, picture)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), picture)


def test_a_png_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path):
    path = str(tmp_path / "samples.png")
    plots.save_png(path, np.zeros((5, 4, 3), np.uint8))
    picture = random_images(3, 6, 3)
    plots.save_png(path, picture)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert [file.name for file in tmp_path.iterdir()] == ["samples.png"]


def test_a_png_that_fails_half_way_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "samples.png"
    plots.save_png(path, random_images(5, 4, 3))
    before = path.read_bytes()

    def write_half(image, file, **kwargs):
        file.write(b"half a pict")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(OSError, match="No space left"):
        plots.save_png(path, np.zeros((5, 4, 3), np.uint8))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["samples.png"]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((5, 4), np.uint8), r"`picture` .*\[H, W, 3\].*\(5, 4\)"),
        (np.zeros((5, 4, 1), np.uint8), r"`picture` .*\[H, W, 3\].*\(5, 4, 1\)"),
        (np.zeros((0, 4, 3), np.uint8), r"`picture` .*not be empty.*\(0, 4, 3\)"),
        (np.zeros((5, 4, 3), np.int64), r"`picture` must be uint8. Received: int64"),
    ],
)
def test_a_png_of_something_else_is_refused_and_not_written(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        plots.save_png(tmp_path / "new" / "samples.png", picture)
    assert not list(tmp_path.iterdir())


def test_maps_have_one_scale_and_a_row_for_each_four_images():
    images, values = random_images(5, 6, 9, 3), np.zeros((5, 6, 9))
    dark = plots.maps(images, values, "bits per pixel")
    values[4, 5, 8] = 1e6  # of 270 numbers one is above the 99.5th percentile
    values[0] = 3
    bright = plots.maps(images, values, "bits per pixel")
    assert dark.shape == bright.shape and dark.dtype == np.uint8
    assert (dark != bright).any(axis=-1).sum() > 1000
    one_row = plots.maps(images[:4], values[:4], "bits per pixel")
    assert one_row.shape[0] < bright.shape[0] and one_row.shape[1] == bright.shape[1]
    for bad in (values[:4], np.full_like(values, np.nan)):
        with pytest.raises(ValueError, match="`values` must be finite and have the shape"):
            plots.maps(images, bad, "bits")


def test_a_long_name_keeps_clear_of_the_plot(monkeypatch):
    legends = []
    legend = Axes.legend

    def kept(axes, *args, **kwargs):
        legends.append((axes, legend(axes, *args, **kwargs)))

    monkeypatch.setattr(Axes, "legend", kept)
    name = "file:/" + "a_long_folder/" * 20 + "images\udcff.npz"
    plots.histograms([("a panel", "bits/dim", {f"1. {name}": [1.0, 2.0], f"2. {name}": [2.0]})])
    ((axes, found),) = legends
    box, plot = found.get_window_extent(), axes.get_tightbbox(for_layout_only=True)
    assert box.y1 <= axes.xaxis.label.get_window_extent().y0
    assert box.x0 >= 0 and box.x1 <= axes.figure.bbox.x1 and box.y0 >= 0, plot
    for number, text in enumerate(found.get_texts(), start=1):
        assert text.get_text().startswith(f"{number}. file:/a_long")
        assert text.get_text().endswith(r"images\udcff.npz")
