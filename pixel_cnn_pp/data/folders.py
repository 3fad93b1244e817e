"""Loads the user's own folders of pictures. Decodes them once and stores them in the cache."""

import collections
import math

import numpy as np

from pixel_cnn_pp.data import decoding, pictures, splits, store, writing

# Possible names of the sub-folder with the test split. The first one that exists is used.
_TEST_NAMES = ("test", "valid", "val")


def load_folder(path, split, data_dir, options):
    """Loads one split of a folder of pictures.

    Args:
      path: Folder of pictures. It may have the sub-folders `train` and one of `test`, `valid` and
        `val`, which are the splits. The sub-folders of a split, or of a folder without splits, are
        the classes. Pictures that are in no such sub-folder have no classes.
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
    listed = _list_splits(root, options)
    states = {
        part: [[file.name, *store.file_state(file.path)] for file in files]
        for part, files in listed.items()
    }
    folder = store.entry(
        data_dir,
        root.resolve().name,
        ["folder", str(root.resolve()), states, options.key()],
        lambda folder: _write_folder(folder, root, listed, options),
    )
    return store.load_stored(folder, split, options.num_levels, options.class_names)


def _list_splits(root, options):
    """{split: list of `pictures.ListedFile`, sorted by name}."""
    if not root.is_dir():
        raise OSError(f"There must be a folder of pictures. Received: {root}, which is none")
    own = {name for name in ("train", *_TEST_NAMES) if (root / name).is_dir()}
    test_name = next((name for name in _TEST_NAMES if name in own), None)
    if test_name is not None and "train" not in own:
        raise ValueError(
            f"A folder with {test_name}/ must have train/ too. Received: {root} without it"
        )
    if test_name is not None:
        options.check_own_test_split(f"a {test_name} split")
        listed = {
            split: pictures.list_folder(root / name, prefix=f"{name}/")
            for split, name in (("train", "train"), ("test", test_name))
        }
    else:
        files = pictures.list_folder(root / "train" if own else root)
        is_test = splits.choose_test([file.name for file in files], options.test_fraction, root)
        listed = {split: [] for split in store.SPLITS}
        for file, chosen in zip(files, is_test, strict=True):
            listed["test" if chosen else "train"].append(file)
    every = listed["train"] + listed["test"]
    loose = [file for file in every if file.label is None]
    if loose and len(loose) < len(every):
        raise ValueError(
            "Pictures must lie in sub-folders, which are the classes, or all in none. "
            f"Received: {loose[0].path} in none, {len(every) - len(loose)} pictures in some"
        )
    return listed


def _write_folder(folder, root, listed, options):
    """Decodes a folder of pictures and writes them to a cache entry."""
    every = listed["train"] + listed["test"]
    paths = [file.path for file in every]
    found = dict(
        zip(every, decoding.in_threads(pictures.try_header, paths, len(paths)), strict=True)
    )
    headers = {file: header for file, header in found.items() if not isinstance(header, str)}
    unreadable = {file.name: reason for file, reason in found.items() if isinstance(reason, str)}
    decoding.check_readable(unreadable, len(every), root)
    num_channels, num_bits = _common_kind(headers)
    size = _common_size(headers, options)
    usable = {
        split: [file for file in files if file in headers and _fits(headers[file], size)]
        for split, files in listed.items()
    }
    for split, files in usable.items():
        if not files:
            raise ValueError(
                f"Each split must have images of at least {size[0]} x {size[1]}. "
                f"Received: {root} with none in the {split} split"
            )
    num_pixels = math.prod(size) * sum(map(len, usable.values()))
    if options.crop == "random":
        num_pixels += sum(headers[file].height * headers[file].width for file in usable["train"])
    dtype = np.dtype(np.uint8 if num_bits <= 8 else np.uint16)
    store.check_space(folder, num_pixels * num_channels * dtype.itemsize)

    has_alpha = num_channels in (2, 4)
    is_mixed = any(header.has_alpha != has_alpha for header in headers.values())

    def convert(name, pixels, header):
        if header.num_bits < num_bits:
            pixels = pixels * np.uint8((2**num_bits - 1) // (2**header.num_bits - 1))
        if header.has_alpha != has_alpha:
            opaque = np.full((*pixels.shape[:2], 1), 2**num_bits - 1, dtype)
            pixels = np.concatenate([pixels, opaque], axis=-1)
        elif is_mixed and pixels[..., -1].min() < 2**num_bits - 1:
            raise ValueError(
                "All images of a folder must have an alpha channel, or none that is not opaque. "
                f"Received: {name} in {root} with one, among images without"
            )
        return pixels

    class_names = sorted({file.label for file in every} - {None})
    numbers = {name: number for number, name in enumerate(class_names)} | {None: None}
    for split, files in usable.items():
        items = ((file.name, file.path, numbers[file.label]) for file in files)
        keeps_uncropped = options.crop == "random" and split == "train"
        with writing.split_writer(
            folder, split, (*size, num_channels), dtype, has_alpha, keeps_uncropped
        ) as writer:
            unreadable |= decoding.append_decoded(
                writer, items, pictures.decoder(convert), len(files)
            )
            broken = {file.name for file in listed[split]} & unreadable.keys()
            num_small = sum(file in headers for file in listed[split]) - len(files)
            writer.left_out = decoding.describe_left_out(
                {name: unreadable[name] for name in sorted(broken)}, num_small, size
            )
    decoding.check_readable(unreadable, len(every), root)
    writing.write_about(
        folder, 2**num_bits, class_names=class_names or None, most_levels=2**num_bits
    )


def _common_kind(headers):
    """The number of channels and of bits to which all images can be converted without loss."""
    # Programs that make files smaller use fewer bits if these are enough. For example, they store
    # an 8-bit grey image that is only black and white with 1 bit. Its values still mean 0 and 255.
    kinds = {
        file: (header.num_channels - header.has_alpha, max(header.num_bits, 8))
        for file, header in headers.items()
    }
    (usual, num_usual), *others = collections.Counter(kinds.values()).most_common()
    if others:
        odd = next(file for file, kind in kinds.items() if kind != usual)
        example = next(header for file, header in headers.items() if kinds[file] == usual)
        raise ValueError(
            "All images of a folder must have the same channels and bits. "
            f"Received: {odd.path} ({headers[odd]}), {num_usual} others {example}"
        )
    bits = {header.num_bits for header in headers.values()}
    num_channels = max(header.num_channels for header in headers.values())
    return num_channels, bits.pop() if len(bits) == 1 else usual[1]


def _common_size(headers, options):
    """The height and width that the images of a folder will have."""
    if options.image_size is not None:
        return options.size(None)
    sizes = {file: (header.height, header.width) for file, header in headers.items()}
    (usual, num_usual), *others = collections.Counter(sizes.values()).most_common()
    if others:
        odd = next(file for file, size in sizes.items() if size != usual)
        raise ValueError(
            "All images of a folder must have one size, or `image_size` must say what to crop them "
            f"to. Received: {odd.path} of {sizes[odd][0]} x {sizes[odd][1]}, {num_usual} others of "
            f"{usual[0]} x {usual[1]}"
        )
    splits.check_size(usual)
    return usual


def _fits(header, size):
    return header.height >= size[0] and header.width >= size[1]
