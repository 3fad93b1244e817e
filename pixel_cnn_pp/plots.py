"""Grids of images, histograms and curves, as arrays and as PNG files."""

import numpy as np
from PIL import Image

from pixel_cnn_pp import files

# Most characters of a name in a legend. A panel is some 60 characters wide.
_LONGEST_NAME = 49
_BACKGROUND = 255  # The background is white, because pictures of digits have black edges.


def image_grid(images, num_columns, num_levels=256, padding=1, scale=1):
    """Arranges integer images in a grid, row by row, as one RGB picture.

    Levels 0 .. L - 1 are scaled to 0 .. 255:  (255 * level + (L - 1) // 2) // (L - 1)

    Args:
      images: Integers [N, H, W, C] in [0, L - 1]. C = 3 is shown as RGB. For any other C, the first
        channel is shown as grey.
      num_columns: Number of images in a row, at least 1. The rest of the last row is white.
      num_levels: L, whole number of at least 2.
      padding: Width in pixels of the white lines between the images. The grid has no outer border.
      scale: Every pixel of the picture, including the lines, becomes a square of scale x scale.
    Returns:
      uint8 array [scale * (rows * (H + padding) - padding),
      scale * (num_columns * (W + padding) - padding), 3], with rows = ceil(N / num_columns).
    Raises:
      ValueError: If an argument has a wrong rank, dtype or range.

    >>> image_grid(np.zeros((5, 8, 6, 1), np.uint8), num_columns=3, num_levels=17).shape
    (17, 20, 3)
    """
    for name, value, low in (
        ("num_columns", num_columns, 1),
        ("num_levels", num_levels, 2),
        ("padding", padding, 0),
        ("scale", scale, 1),
    ):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
            raise ValueError(
                f"`{name}` must be a whole number of at least {low}. Received: {name}={value!r}"
            )
    images = np.asarray(images)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(
            "`images` must have the shape [N, H, W, C] and not be empty. "
            f"Received: shape {images.shape}"
        )
    if not np.issubdtype(images.dtype, np.integer):
        raise ValueError(f"`images` must be integers. Received: {images.dtype}")
    lowest, highest = int(images.min()), int(images.max())
    if lowest < 0 or highest >= num_levels:
        raise ValueError(
            f"`images` must lie in [0, {num_levels - 1}]. Received: values in [{lowest}, {highest}]"
        )

    if images.shape[-1] != 3:
        images = images[..., :1]
    num_images, height, width, _ = images.shape
    num_rows = -(-num_images // num_columns)  # Rounded up.
    cell_height, cell_width = height + padding, width + padding
    cells = np.full((num_rows * num_columns, cell_height, cell_width, 3), _BACKGROUND, np.uint8)
    steps = num_levels - 1
    cells[:num_images, :height, :width] = (255 * images.astype(np.int64) + steps // 2) // steps
    picture = cells.reshape(num_rows, num_columns, cell_height, cell_width, 3)
    picture = picture.transpose(0, 2, 1, 3, 4)  # [rows, H + padding, columns, W + padding, 3]
    picture = picture.reshape(num_rows * cell_height, num_columns * cell_width, 3)
    picture = picture[: num_rows * cell_height - padding, : num_columns * cell_width - padding]
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def completion_grid(originals, known_mask, completed, num_levels, scale=1):
    """Arranges completions. Each row shows one original, its known pixels, and its completions.

    Args:
      originals: Integer array [N, H, W, C], levels in [0, L - 1].
      known_mask: Boolean array [H, W], true for known pixels. Other pixels are shown grey.
      completed: Integer array [N M, H, W, C]: M completions of the first original, then M of the
        second, and so on.
      num_levels: L, whole number of at least 2.
      scale: Whole number of at least 1, the side of the square that shows a pixel.
    Returns:
      uint8 array [H', W', 3], as `image_grid` returns.
    Raises:
      ValueError: As `image_grid` does.
    """
    originals, completed = np.asarray(originals), np.asarray(completed)
    masked = np.where(known_mask[..., None], originals, (num_levels - 1) // 2)
    completed = completed.reshape(len(originals), -1, *originals.shape[1:])
    shown = np.concatenate([originals[:, None], masked[:, None], completed], axis=1)
    num_columns = shown.shape[1]
    shown = shown.reshape(-1, *originals.shape[1:])
    return image_grid(shown, num_columns, num_levels, scale=scale)


def stage_grid(columns, scale=1):
    """Shows pictures of several sizes and levels side by side: a row each, a column for each kind.

    Args:
      columns: List of (integers [N, h, w, c], number of their levels). The last ones are the
        largest, and sides of the others divide theirs.
      scale: Whole number of at least 1, the side of the square that shows a pixel of the largest.
    Returns:
      uint8 array [H', W', 3], as `image_grid` returns.
    Raises:
      ValueError: As `image_grid` does.
    """
    height, width = columns[-1][0].shape[1:3]
    shown = []
    for pictures, num_levels in columns:
        # One below the other, and without lines between them, they are one picture.
        column = image_grid(pictures, 1, num_levels, padding=0)
        own_height, own_width = pictures.shape[1:3]
        column = column.repeat(height // own_height, axis=0).repeat(width // own_width, axis=1)
        shown.append(column.reshape(len(pictures), height, width, 3))
    cells = np.stack(shown, axis=1).reshape(-1, height, width, 3)
    return image_grid(cells, len(columns), scale=scale)


def save_png(path, picture):
    """Writes a picture to a PNG file. The file is complete or not written.

    Args:
      path: File to write or replace. Missing folders are created.
      picture: uint8 array [H, W, 3], as `image_grid` and `histograms` return.
    Raises:
      ValueError: If the picture has another shape or dtype.
      OSError: If the file cannot be written. Then an older file is unchanged.
    """
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.size == 0:
        raise ValueError(
            "`picture` must have the shape [H, W, 3] and not be empty. "
            f"Received: shape {picture.shape}"
        )
    if picture.dtype != np.uint8:
        raise ValueError(f"`picture` must be uint8. Received: {picture.dtype}")
    files.replace(path, lambda file: _write_png(file, picture))


def save_drawn(stem, picture, arrays):
    """Writes a picture of images and their arrays, STEM.png and STEM.npz: both, or neither.

    Args:
      stem: Path of both files without ending.
      picture: As in `save_png`.
      arrays: {name: array}.
    Raises:
      OSError: If one of the files cannot be written. Then older files are unchanged.
    """
    files.replace_all(
        {
            f"{stem}.png": lambda file: _write_png(file, picture),
            f"{stem}.npz": lambda file: np.savez(file, **arrays),
        }
    )


def _write_png(file, picture):
    Image.fromarray(picture).save(file, format="PNG")


def histograms(panels, num_bins=50):
    """Draws histograms of several sets as one picture. It has one panel for each quantity.

    All sets of a panel have the same bins. The height of a bin is the fraction of the set's values
    in it, so that sets of different sizes can be compared.

    Args:
      panels: Sequence of (title, label of the x axis, {name of a set: floats [N]}). All values must
        be finite.
      num_bins: Number of bins of a panel, between the smallest and the greatest value of its sets.
    Returns:
      uint8 array [H, W, 3], for `save_png`.
    Raises:
      ValueError: If there is no panel, or if a set is empty or has a value that is not finite.

    >>> histograms([("a panel", "bits/dim", {"one": [1.0, 2.0], "other": [2.0]})]).dtype
    dtype('uint8')
    """
    if not panels:
        raise ValueError("`panels` must not be empty. Received: no panel")
    for title, _, sets in panels:
        for name, values in sets.items():
            if not len(values) or not np.isfinite(values).all():
                raise ValueError(
                    "Values for a histogram must be finite, and at least one. "
                    f"Received: {np.shape(values)} values of {name} in {title}"
                )
    figure, (all_axes,) = _figure(len(panels))
    for axes, (title, x_label, sets) in zip(all_axes, panels, strict=True):
        edges = np.histogram_bin_edges(np.concatenate(list(sets.values())), num_bins)
        for name, values in sets.items():
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, fill=True, alpha=0.5, label=_shown(name))
        axes.set(title=title, xlabel=x_label, ylabel="share of the images")
        # Below the plot, because a name may be as wide as it is.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize="small")
    return _drawn(figure)


def curves(panels):
    """Draws several curves as one picture. It has one panel for each quantity.

    A curve that was measured several times is drawn as its mean. A band around it shows the lowest
    and the highest value.

    Args:
      panels: Sequence of (title, label of the x axis, label of the y axis,
        {name of a curve: (xs [T], ys [N, T])}), N >= 1 and T >= 1, all finite. The upper edge of a
        panel is the greatest mean after the first quarter of any curve. Otherwise a steep start
        would leave little height for the rest.
    Returns:
      uint8 array [H, W, 3], for `save_png`.
    Raises:
      ValueError: If there is no panel, or if a curve has no points or a point that is not finite.

    >>> curves([("a panel", "step", "bits/dim", {"one": ([1, 2], [[3.0, 2.0]])})]).dtype
    dtype('uint8')
    """
    if not panels:
        raise ValueError("`panels` must not be empty. Received: no panel")
    for title, _, _, lines in panels:
        for name, (xs, ys) in lines.items():
            shape = np.shape(ys)
            is_right = len(shape) == 2 and 0 not in shape and shape[1] == len(xs)
            if not is_right or not np.isfinite(ys).all():
                raise ValueError(
                    "A curve must have finite values [N, T] at the same points [T], and at least "
                    f"one. Received: values {shape} at {len(xs)} points of {name} in {title}"
                )
    figure, (all_axes,) = _figure(len(panels))
    for axes, (title, x_label, y_label, lines) in zip(all_axes, panels, strict=True):
        for name, (xs, ys) in lines.items():
            marker = "o" if len(xs) == 1 else None  # A single point makes no line.
            (line,) = axes.plot(xs, np.mean(ys, axis=0), label=name, marker=marker)
            axes.fill_between(
                xs, np.min(ys, axis=0), np.max(ys, axis=0), alpha=0.3, color=line.get_color()
            )
        behind_start = [np.mean(ys, axis=0)[len(xs) // 4 :] for xs, ys in lines.values()]
        lowest, highest = (limit(list(map(limit, behind_start))) for limit in (min, max))
        if lowest < highest:
            margin = 0.05 * (highest - lowest)
            axes.set_ylim(lowest - margin, highest + margin)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        axes.legend(fontsize="small")
    return _drawn(figure)


def _shown(name):
    """A name as a legend shows it: as text, and no wider than a panel."""
    name = name.encode(errors="backslashreplace").decode()
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def maps(images, values, label, num_levels=256, num_columns=4):
    """Draws images, each beside a map of numbers, one for each of its pixels.

    All maps have the same colours. A bar beside them tells their numbers. The brightest colour is
    that of all numbers above the 99.5th percentile.

    Args:
      images: Integers [N, H, W, C] in [0, L - 1], as in `image_grid`.
      values: Finite floats [N, H, W].
      label: What the numbers are, for the colour bar.
      num_levels: L.
      num_columns: Number of images in a row, each with its map.
    Returns:
      uint8 array [H', W', 3], for `save_png`.
    Raises:
      ValueError: If the images are not as in `image_grid`, or if the values have another shape or
        are not finite.

    >>> maps(np.zeros((2, 8, 6, 1), np.uint8), np.zeros((2, 8, 6)), "bits").dtype
    dtype('uint8')
    """
    values = np.asarray(values)
    if values.shape != np.shape(images)[:3] or not np.isfinite(values).all():
        raise ValueError(
            f"`values` must be finite and have the shape {np.shape(images)[:3]}. "
            f"Received: values of shape {values.shape}"
        )
    pictures = [image_grid(image[None], 1, num_levels) for image in np.asarray(images)]
    num_columns = min(num_columns, len(pictures))
    num_rows = -(-len(pictures) // num_columns)
    figure, grid = _figure(
        2 * num_columns, num_rows, (1.5, 1.5 * values.shape[1] / values.shape[2])
    )
    for axes in grid.flat:
        axes.set_axis_off()
    highest = max(float(np.percentile(values, 99.5)), float(np.finfo("float32").tiny))
    for axes, picture in zip(grid.reshape(-1, 2)[:, 0], pictures, strict=False):
        axes.imshow(picture, interpolation="nearest")
    for axes, value in zip(grid.reshape(-1, 2)[:, 1], values, strict=False):
        shown = axes.imshow(value, "magma", vmin=0, vmax=highest, interpolation="nearest")
    figure.colorbar(shown, ax=grid, label=label, extend="max")
    return _drawn(figure)


def bars(panels):
    """Draws groups of bars as one picture. It has one panel for each quantity.

    Args:
      panels: Sequence of (title, label of the y axis, {name of a group: {name of a bar: number}}).
        All numbers must be finite. A group may lack bars that others have.
    Returns:
      uint8 array [H, W, 3], for `save_png`.
    Raises:
      ValueError: If there is no panel or no bar, or if a number is not finite.

    >>> bars([("a panel", "bytes", {"one": {"alone": 3.0, "together": 2.0}})]).dtype
    dtype('uint8')
    """
    if not panels:
        raise ValueError("`panels` must not be empty. Received: no panel")
    for title, _, groups in panels:
        numbers = [number for group in groups.values() for number in group.values()]
        if not numbers or not np.isfinite(numbers).all():
            raise ValueError(f"Bars must be finite, and at least one. Received: others in {title}")
    figure, (all_axes,) = _figure(len(panels))
    for axes, (title, y_label, groups) in zip(all_axes, panels, strict=True):
        names = list(dict.fromkeys(name for group in groups.values() for name in group))
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            heights = [group.get(name, 0.0) for group in groups.values()]
            places = np.arange(len(groups)) + (i + 0.5) * width - 0.4
            axes.bar(places, heights, width, label=name)
        axes.set_xticks(range(len(groups)), groups, rotation=20)
        axes.set(title=title, ylabel=y_label)
        axes.legend(fontsize="small")
    return _drawn(figure)


def _figure(num_columns, num_rows=1, panel_size=(4.5, 4)):
    """Makes a figure, and the axes of its panels [num_rows, num_columns]. Sizes are in inches."""
    # The import is here, because it takes a second. Without pyplot, a figure needs no display.
    from matplotlib.figure import Figure

    width, height = panel_size
    size = (width * num_columns, height * num_rows)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    return figure, figure.subplots(num_rows, num_columns, squeeze=False)


def _drawn(figure):
    """Draws a figure to a uint8 array [H, W, 3]."""
    from matplotlib.backends import backend_agg

    canvas = backend_agg.FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
