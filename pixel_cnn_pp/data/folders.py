"""Loads the user's own folders of pictures. Decodes them once and stores them in the cache."""

import collections
import dataclasses
import math

import numpy as np

from pixel_cnn_pp.data import (
    decoding,
    kinds,
    layout,
    listing,
    pictures,
    splits,
    store,
    writing,
)

_FULL_BYTE = 8


def load_folder(path, split, data_dir, options):
    """Loads one split of a folder of pictures.

    Args:
      path: Folder of pictures. It may have the sub-folders `train` and one of `test` and `valid`,
        which are the splits; `layout.py` knows more names. The sub-folders of a split, or of a
        folder without splits, are the classes. Pictures in no such sub-folder have no classes.
      split: "train" or "test".
      data_dir: Folder with the cache. `path` may also be relative to this folder.
      options: `splits.Options`. With an `image_size`, smaller images are left out. If `num_levels`
        is None, L is 2 to the power of the number of bits of the files.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the folder holds no such images, or images of different kinds or sizes.
      OSError: If the folder cannot be read, or the cache cannot be written.
    """
    options.check_crop()
    root = splits.located(path, data_dir)
    if not root.is_dir():
        raise OSError(f"There must be a folder of pictures. Received: {root}, which is none")
    listed = listing.list_folder(root)
    arranged = layout.arranged(listed.files, options, root, listed.repeated)
    if listed.passed_over:
        arranged.notes.append(f"passed over: {listing.described(listed.passed_over)}")
    states = {
        part: [[file.name, *file.state] for file in files] for part, files in arranged.files.items()
    }
    key = ["folder", str(root.resolve()), states]
    return load_pictures(
        split, data_dir, root, key, arranged, options, lambda files: (file.path for file in files)
    )


def load_pictures(split, data_dir, root, key, arranged, options, encoded):
    """Loads one split of pictures that are arranged in splits and classes.

    Args:
      split: "train" or "test".
      data_dir: Folder with the cache.
      root: Path of the folder or file that holds them.
      key: What their contents depend on, for the cache.
      arranged: `layout.Layout`.
      options: `splits.Options`.
      encoded: Function of a list of files of one split, which yields the path or the bytes of each.
    Returns:
      StoredImages.
    """

    def entry(min_bits):
        return store.entry(
            data_dir,
            root.resolve().name,
            [*key, options.key(), min_bits],
            lambda folder: _write(folder, root, arranged, options, encoded, min_bits),
            store.damage,
        )

    folder = entry(1)
    if options.num_levels == 2**_FULL_BYTE > store.read_about(folder)["most_levels"]:
        # Beside images of 8 bits, those that were squeezed to fewer count as having 8.
        folder = entry(_FULL_BYTE)
    stored = store.load_stored(folder, split, options.num_levels, options.class_names)
    return dataclasses.replace(stored, description="; ".join([stored.description, *arranged.notes]))


def _write(folder, root, arranged, options, encoded, min_bits):
    """Decodes pictures and writes them to a cache entry."""
    found = {}
    for files in arranged.files.values():  # An archive has the files of a split in this order.
        headers = decoding.in_threads(pictures.try_header, encoded(files), len(files))
        found |= zip(files, headers, strict=True)
    headers = {file: header for file, header in found.items() if not isinstance(header, str)}
    unreadable = {file.name: reason for file, reason in found.items() if isinstance(reason, str)}
    decoding.check_readable(unreadable, len(found), root)
    kind, odd = kinds.common(headers, options, root, min_bits)
    usable = {
        split: [f for f in files if f in headers and f not in odd and kind.fits(headers[f])]
        for split, files in arranged.files.items()
    }
    for split, files in usable.items():
        if not files:
            raise ValueError(
                f"Each split must have images of at least {kind.size[0]} x {kind.size[1]}. "
                f"Received: {root} with none in the {split} split"
            )
    pages = _pages(arranged, headers, options, root)
    num_pixels = math.prod(kind.size) * sum(
        headers[file].num_pages for files in usable.values() for file in files
    )
    if options.crop == "random":
        num_pixels += sum(
            headers[file].height * headers[file].width * headers[file].num_pages
            for file in usable["train"]
        )
    store.check_space(folder, num_pixels * kind.num_channels * kind.dtype.itemsize)

    class_names = []
    if arranged.labels:
        class_names = arranged.class_names or sorted(set(arranged.labels.values()))
    numbers = {name: number for number, name in enumerate(class_names)}
    for split in store.SPLITS:
        files, clear = usable[split], []
        decode = pictures.decoder(_converter(kind, options, root, headers, clear))

        def decode_pages(name, file, decode=decode, split=split):
            images = decode(name, file)
            if isinstance(images, str):
                return images
            chosen = images if pages is None else [images[i] for i in pages[split]]
            return [image for image in chosen if image is not None]

        labels = (numbers.get(arranged.labels.get(file.name)) for file in files)
        items = zip((file.name for file in files), encoded(files), labels, strict=True)
        keeps_uncropped = options.crop == "random" and split == "train"
        with writing.split_writer(
            folder,
            split,
            (*kind.size, kind.num_channels),
            kind.dtype,
            kind.has_alpha,
            keeps_uncropped,
        ) as writer:
            unreadable |= decoding.append_decoded(writer, items, decode_pages, len(files))
            own = arranged.files[split]
            num_small = sum(file in headers and file not in odd for file in own) - len(files)
            words = collections.Counter(odd[file] for file in own if file in odd)
            words.update(clear)
            writer.left_out = decoding.describe_left_out(
                {file.name: unreadable[file.name] for file in own if file.name in unreadable},
                num_small,
                kind.size,
                words,
                _notes(files, headers),
            )
    decoding.check_readable(unreadable, len(found), root)
    writing.write_about(
        folder,
        2**kind.num_bits,
        class_names=class_names or None,
        most_levels=2**kind.num_bits,
    )


def _converter(kind, options, root, headers, clear):
    """Makes the function that converts an image; it appends to `clear` what it leaves out."""

    def convert(name, pixels, header):
        converted = kind.converted(pixels, header)
        if converted is None:
            if not options.skip_odd:
                num_opaque = sum(not other.has_alpha for other in headers.values())
                raise ValueError(
                    "All images of a folder must have an alpha channel, or none that is not "
                    "opaque: --convert rgb or --convert grey drops it, --skip_odd leaves such "
                    f"images out. Received: {name} in {root} with one, among {num_opaque} images "
                    f"without and {len(headers) - num_opaque} with alpha"
                )
            clear.append("alpha that is not opaque")
        return converted

    return convert


def _pages(arranged, headers, options, root):
    """{split: numbers of its pages} where the only file is split by its pages, otherwise None."""
    if not arranged.by_page:
        return None
    (file,) = arranged.files["train"]
    names = [f"{file.name}#{number}" for number in range(headers[file].num_pages)]
    is_test = splits.choose_test(names, options.test_fraction, root)
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}


def _notes(files, headers):
    """What is to be known of files that hold several images, in words."""
    stacks = [headers[file].num_pages for file in files if headers[file].num_pages > 1]
    num_animated = sum(headers[file].is_animated for file in files)
    if stacks:
        yield f"{sum(stacks)} pages in {len(stacks)} files, each an image"
    if num_animated:
        yield f"{num_animated} animated, of which the first frame was read"
