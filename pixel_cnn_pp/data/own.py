"""Finds out what a user's own file or folder is, and loads it."""

import collections

from pixel_cnn_pp.data import (
    archives,
    array_files,
    array_names,
    arrays,
    folders,
    layout,
    listing,
    splits,
    store,
)


def load_own(path, split, data_dir, options, is_of_pictures=False):
    """Loads one split of whatever lies at a path.

    Args:
      path: Folder of pictures, of arrays, or of archives; or a file of arrays, or an archive of
        pictures.
      split, data_dir, options: As in `folders.load_folder`.
      is_of_pictures: Whether a folder is one of pictures, whatever else lies in it.
    Returns:
      StoredImages.
    Raises:
      ValueError: If it is of no known kind, or does not hold such images.
      OSError: If it cannot be read, or the cache cannot be written.
    """
    located = splits.located(path, data_dir)
    if is_of_pictures and not located.is_file():
        return folders.load_folder(path, split, data_dir, options)
    if located.is_dir():
        if array_files.files_of(located):
            return arrays.load_arrays(path, split, data_dir, options)
        shards = archives.shards(located)
        if not shards:
            return folders.load_folder(path, split, data_dir, options)
        return _load_archives(located, shards, split, data_dir, options)
    if located.is_file() and not array_files.is_file(located) and archives.kind_of(located):
        return _load_archives(located, [located], split, data_dir, options)
    return arrays.load_arrays(path, split, data_dir, options)


def _load_archives(root, shards, split, data_dir, options):
    """Loads one split of the pictures of one or more archives."""
    options.check_crop()
    opened = [archives.opened(path) for path in shards]
    split_of = _splits_of(shards, root)
    files, labels, passed_over, sources = [], {}, collections.Counter(), {}
    for archive in opened:
        part = split_of[archive.path]
        prefix = "" if part is None else f"{part}/"
        # Archives may have members of the same names.
        suffix = "" if len(opened) == 1 else f"#{archive.path.name}"
        strip = _common_folder(archive.files)
        passed_over.update(archive.passed_over)
        for file in archive.files:
            name = prefix + file.name.removeprefix(strip) + suffix
            named = listing.ListedFile(name, file.path)
            files.append(named)
            sources[named] = archive.path
            if archive.labels:
                labels[name] = archive.labels[file.name]
    arranged = layout.arranged(files, options, root, labels=labels or None)
    if passed_over:
        arranged.notes.append(f"passed over: {listing.described(passed_over)}")

    def encoded(wanted):
        by_shard = collections.defaultdict(list)
        for file in wanted:
            by_shard[sources[file]].append(file.path)
        for path, names in by_shard.items():
            yield from archives.encoded(path, names)

    key = ["archives", *([str(path.resolve()), *store.file_state(path)] for path in shards)]
    return folders.load_pictures(split, data_dir, root, key, arranged, options, encoded)


def _splits_of(shards, root):
    """{path: its split by its name, such as train-00000-of-00002, or None}."""
    found = dict.fromkeys(shards)
    if len(shards) > 1:
        for path in shards:
            found[path], _ = array_names.role(path.name.partition(".")[0], is_file=True)
    if None in found.values() and set(found.values()) != {None}:
        odd = next(path for path, split in found.items() if split is None)
        raise ValueError(
            "Archives must be called by their splits, such as train-00000.tar and test-00000.tar, "
            f"or none of them. Received: {odd.name} in {root} beside others that are"
        )
    return found


def _common_folder(files):
    """The folder that all pictures of an archive lie in, if it is not the folder of a split."""
    first = files[0].name.partition("/")[0] + "/"
    if not all(file.name.startswith(first) for file in files) or layout.is_split(first[:-1]):
        return ""
    return first
