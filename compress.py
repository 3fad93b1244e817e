"""Compresses pictures without loss: python compress.py save/photos a.png b.png --out two.pcn."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"compress.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

import pathlib

import numpy as np
from absl import flags
from tqdm import tqdm

from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "File to write, or the folder to write pictures to")
flags.DEFINE_string("decompress", None, "File to decompress, instead of pictures to compress")
flags.DEFINE_bool("salvage", False, "Decompress what is left of a damaged file")
flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged weights, or those of the last step")
flags.DEFINE_list(
    "labels", None, "Class of each picture, or of all, such as 3 or cat,dog; default: the file's"
)
flags.DEFINE_string(
    "tile_size", None, "Size of the tiles of larger pictures, 64 or 48x64; default: the training's"
)
flags.DEFINE_integer(
    "batch_size", None, "Tiles side by side; default: what suits the machine", lower_bound=1
)
flags.DEFINE_bool("verify", True, "Decompress what was compressed, to make sure")
flags.DEFINE_bool("compare", True, "Print the sizes of PNG, WebP and JPEG XL too, and draw them")
flags.DEFINE_string("plot", None, "PNG of the compared sizes; default: that of `out` with .png")
flags.DEFINE_string("sizes", None, "File to write the sizes of each picture to, .npz or .csv")


def main(run_dir, *paths):
    """Compresses pictures into a file, or decompresses a file into a folder."""
    if FLAGS.out is None:
        raise ValueError("`out` must name what to write. Received: out=None")
    if FLAGS.decompress is None:
        _compress(run_dir, paths)
    else:
        _decompress(run_dir, paths)


def _compress(run_dir, paths):
    from pixel_cnn_pp import codec, evaluation
    from pixel_cnn_pp.runs import checkpoints

    if not paths:
        raise ValueError("PICTURES must be at least one file, or test. Received: none")
    _refuse("salvage", reason="only `decompress` salvages")
    plot_path = _checked_plot_path()
    for name, path in (("out", FLAGS.out), ("plot", plot_path), ("sizes", FLAGS.sizes)):
        if path is not None:
            scripts.check_writable(name, path)
    if FLAGS.sizes is not None:
        evaluation.check_scores_path(FLAGS.sizes)
    model = checkpoints.load(run_dir, FLAGS.weights)
    model.likelihood.require_log_prob()
    images, labels = _read(run_dir, paths, model.config)
    tile_shape = model.config.image_shape[:2]
    if FLAGS.tile_size is not None:
        tile_shape = scripts.parse_image_size(FLAGS.tile_size)

    with _bar("row", FLAGS.out) as bar:
        data, report = codec.compress_and_report(
            model, images, labels, tile_shape, FLAGS.batch_size, FLAGS.verify, _progress(bar)
        )
    _write(FLAGS.out, data)
    num_dims = sum(image.size for image in images)
    verified = ", and decompressed them to the same" if FLAGS.verify else ""
    print(
        f"Wrote {len(images)} pictures to {FLAGS.out}{verified}: {len(data)} bytes, "
        f"{8 * len(data) / num_dims:.4f} bits/dim; the range coder took "
        f"{report.coder_share:.1%} of the time, most of which may be the compilation"
    )
    if FLAGS.compare or FLAGS.sizes is not None:
        _compare(model, list(images), labels, tile_shape, len(data), report, plot_path)


def _checked_plot_path():
    """The picture to draw, or None."""
    if not FLAGS.compare:
        _refuse("plot", reason="`compare` draws it")
        return None
    path = pathlib.Path(FLAGS.plot or pathlib.Path(FLAGS.out).with_suffix(".png"))
    if path.suffix != ".png" or path == pathlib.Path(FLAGS.out):
        raise ValueError(f"`plot` must end in .png, and not be `out`. Received: plot={path}")
    return path


def _read(run_dir, paths, config):
    """The images of all files and their labels or None. They are one array if they are of one."""
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import checkpoints

    settings, found = checkpoints.load_config(run_dir).data, []
    for path in paths:
        if path == "test":
            found.append(data.load_split(settings, "test", config.num_classes))
        else:
            num_classes = None if FLAGS.labels is not None else config.num_classes
            class_names = None if num_classes is None else settings.class_names
            channels, levels = config.image_shape[-1], config.num_levels
            found.append(data.load_file(path, channels, levels, num_classes, class_names))
    # A picture is one image of one file; other files are arrays.
    is_array = len(found) == 1 and (paths[0] == "test" or len(found[0].images) > 1)
    images = found[0].images if is_array else [image for each in found for image in each.images]
    if config.num_classes is None:
        _refuse("labels", reason="the model is not class-conditional")
        return images, None
    if FLAGS.labels is not None:
        labels = data.class_numbers(FLAGS.labels, settings.class_names)
        if len(labels) not in (1, len(images)):
            raise ValueError(
                f"`labels` must have one class, or one for each of {len(images)} pictures. "
                f"Received: {len(labels)} classes"
            )
        return images, np.broadcast_to(labels, len(images))
    if any(each.labels is None for each in found):
        raise ValueError(
            "`labels` must say the classes of pictures that have none, because the model is "
            "class-conditional. Received: labels=None"
        )
    return images, np.concatenate([each.labels for each in found])


def _compare(model, images, labels, tile_shape, num_bytes, report, plot_path):
    """Prints and draws the sizes of this file, of the likelihood and of other codecs."""
    from pixel_cnn_pp import evaluation, plots
    from pixel_cnn_pp.codec import ideal, peers

    with _bar("tile", "likelihood") as bar:
        bits = ideal.bits(model, images, labels, tile_shape, progress=_progress(bar))
    with _bar("file", "other codecs") as bar:
        others = peers.sizes(images, _progress(bar)) if FLAGS.compare else {}
    num_dims = np.array([image.size for image in images])
    columns = {
        "index": np.arange(len(images)),
        "num_dims": num_dims,
        "likelihood_bits": bits,
        "code_bits": report.bits,
        "bytes": report.alone_bytes,
        "header_bytes": report.alone_header_bytes,
    }
    # (name, bytes of one file, without its header, bytes of each file, without its header)
    bound = model.likelihood.unit.removeprefix("bits/dim")
    own_alone = report.alone_bytes - report.alone_header_bytes
    rows = [
        (f"-log2 p{bound}", bits.sum() / 8, bits.sum() / 8, bits / 8, bits / 8),
        ("this file", num_bytes, sum(report.chunk_bytes), report.alone_bytes, own_alone),
    ]
    for name, sizes in others.items():
        rows.append((name, sizes.together, None, sizes.alone, sizes.alone - sizes.headers))
        key = name.lower().replace(" ", "_")
        columns |= {f"{key}_bytes": sizes.alone, f"{key}_header_bytes": sizes.headers}
    if FLAGS.sizes is not None:
        evaluation.save_scores(FLAGS.sizes, columns)
        print(f"Wrote the sizes of {len(images)} pictures to {FLAGS.sizes}")
    if FLAGS.compare:
        _print_table(rows, num_dims)
        panels = [
            _panel(rows, num_dims, "one file", 1),
            _panel(rows, num_dims, "image by image", 3),
        ]
        plots.save_png(plot_path, plots.bars(panels))
        print(f"Wrote the bars to {plot_path}")


def _print_table(rows, num_dims):
    total = num_dims.sum()
    print("                      one file              image by image        without headers")
    print(
        "                         bytes  bits/dim         bytes  bits/dim         bytes  bits/dim"
    )
    for name, together, _, alone, bare in rows:
        numbers = [(size, 8 * size / total) for size in (together, alone.sum(), bare.sum())]
        cells = "".join(f"{size:14.0f}{rate:10.4f}" for size, rate in numbers)
        print(f"{name:16.16}{cells}")
    _, _, _, own_alone, own_bare = rows[1]
    for name, _, _, alone, bare in rows[2:]:
        print(
            f"Image by image, this is {_than(own_alone, alone)} than {name}, without headers "
            f"{_than(own_bare, bare)}; {np.sum(own_alone < alone)} of {len(alone)} pictures are "
            f"shorter, {np.sum(own_bare < bare)} without headers"
        )


def _than(own, others):
    """How much shorter all of it is, or longer, in words."""
    saved = 1 - own.sum() / others.sum()
    return f"{abs(saved):.1%} {'shorter' if saved >= 0 else 'longer'}"


def _panel(rows, num_dims, title, place):
    """A panel of bars: each codec with its headers, and without them where they are known."""
    groups = {}
    for row in rows:
        pair = {"with headers": row[place], "without headers": row[place + 1]}
        groups[row[0]] = {
            name: 8 * np.sum(size) / num_dims.sum()
            for name, size in pair.items()
            if size is not None
        }
    return title, "bits/dim", groups


def _decompress(run_dir, paths):
    from pixel_cnn_pp import codec, data
    from pixel_cnn_pp.codec import container
    from pixel_cnn_pp.runs import checkpoints

    if paths:
        raise ValueError(f"PICTURES must be left out with `decompress`. Received: {paths[0]}")
    names = ("labels", "tile_size", "batch_size", "plot", "sizes", "verify", "compare")
    _refuse(*names, reason="it belongs to compressing")
    encoded = pathlib.Path(FLAGS.decompress).read_bytes()
    folder = pathlib.Path(FLAGS.out)
    scripts.check_writable("out", str(folder / "0.png"))
    header, _ = container.unpack(encoded, allow_damage=True)  # before the model is loaded
    model = checkpoints.load(run_dir, FLAGS.weights)
    reasons = []
    with _bar("row", FLAGS.decompress) as bar:
        if FLAGS.salvage:
            images, reasons = codec.salvage(model, encoded, progress=_progress(bar))
        else:
            images = codec.decompress(model, encoded, progress=_progress(bar))
    found = [index for index, image in enumerate(images) if image is not None]
    labels = None
    if header.labels is not None:
        class_names = checkpoints.load_config(run_dir).data.class_names
        labels = data.given_labels(np.array(header.labels), class_names)
    if header.is_array:
        arrays = {} if labels is None else {"labels": labels[found]}
        if len(found) < len(images):
            arrays["index"] = np.array(found)
        if found:
            np.savez(folder / "images.npz", images=np.stack([images[i] for i in found]), **arrays)
    else:
        digits = len(str(len(images) - 1))
        for index in found:
            _write_picture(folder / f"{index:0{digits}}", images[index])
        if labels is not None:
            lines = [f"{index:0{digits}},{labels[index]}\n" for index in found]
            (folder / "labels.csv").write_text("picture,label\n" + "".join(lines))
    for reason in reasons:
        print(f"Lost: {reason}")
    print(f"Wrote {len(found)} of {len(images)} pictures to {folder}")


def _write_picture(stem, picture):
    """Writes a picture as PNG with its levels as they are; as an array if it has many channels."""
    import imagecodecs

    if picture.shape[-1] > 4:
        np.save(f"{stem}.npy", picture)
        return
    dtype = np.uint8 if picture.dtype == np.uint8 else np.uint16
    pixels = picture.astype(dtype)
    _write(
        f"{stem}.png", imagecodecs.png_encode(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    )


def _write(path, data):
    """Writes a file. It is complete or not written."""
    path = pathlib.Path(path)
    # The temporary file is in the same folder, because a rename is atomic only within one disk.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _bar(unit, name):
    """A progress bar, if there is a terminal to show it on."""
    return tqdm(desc=str(name), unit=unit, leave=False, disable=None)


def _progress(bar):
    """Function (done, total) that moves a bar."""

    def progress(done, total):
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _refuse(*names, reason):
    """Refuses flags that have no meaning together with the others, or without them."""
    for name in names:
        if FLAGS[name].present:
            raise ValueError(
                f"`{name}` must be left out: {reason}. Received: {name}={FLAGS[name].value}"
            )


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR", "[PICTURES...]"], keeps_compiled=True)
