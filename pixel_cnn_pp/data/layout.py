"""Which pictures of a folder belong to which split and class, by their names alone."""

import collections
import dataclasses
import re

from pixel_cnn_pp.data import splits

# Names of the folders of splits, in any case.
_SPLITS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "valid": ("valid", "validation", "val", "dev"),
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names}
_BESIDE = r"(set|split|data|dataset|images?|imgs?|pictures?|\d+)"
_LOOKS_LIKE_A_SPLIT = re.compile(
    rf"({_BESIDE}[\W_]*)*({'|'.join(_SPLIT_OF)}|eval|evaluation|hold.?out|held.?out)"
    rf"([\W_]*{_BESIDE})*"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The pictures of each split.

    Attributes:
      files: {"train": list of files, "test": list of files}.
      labels: {name of a file: name of its class}, empty if there are no classes.
      notes: What was found besides, in words for the load line.
      by_page: Whether both splits are the same file, whose pages are split.
      class_names: Names of the classes in the order of their numbers. None for the classes that
        occur, sorted.
    """

    files: dict
    labels: dict
    notes: list
    by_page: bool = False
    class_names: tuple | None = None


def arranged(files, options, where, repeated=(), labels=None):
    """Arranges pictures by the folders in their names.

    Args:
      files: List of `listing.ListedFile`.
      options: `splits.Options`.
      where: Path of the folder or archive, for messages.
      repeated: Names of folders that are left out, because they are links to others.
      labels: {name of a file: name of its class}, where that is known otherwise, or None.
    Returns:
      Layout.
    Raises:
      ValueError: If folders look like splits that are not used, if only some pictures lie in
        classes, or if there are too few pictures.
    """
    tops = collections.Counter(_top(file.name) for file in files)
    found = collections.defaultdict(list)
    for top in sorted(tops.keys() - {""}):
        if top.lower() in _SPLIT_OF:
            found[_SPLIT_OF[top.lower()]].append(top)
    _check_repeated(repeated, where)
    for names in found.values():
        if len(names) > 1:
            raise ValueError(
                f"A folder must have one folder for each split. Received: {where} with "
                f"{'/ and '.join(names)}/"
            )
    notes = []
    test_name = next((found[split][0] for split in ("test", "valid") if found[split]), None)
    parts = {"test": [], "train": files}
    if found["train"]:
        used = {"train": found["train"][0], "test": test_name}
        _note_others(tops, used, notes, where)
        parts = {
            split: [file for file in files if top is not None and _top(file.name) == top]
            for split, top in reversed(used.items())
        }
    elif test_name is not None:
        raise ValueError(
            f"A folder with {test_name}/ must have train/ too. Received: {where} without it"
        )
    else:
        _check_no_splits(files, where)
    kept = _once(parts)
    repeats = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    if repeats:
        notes.append(f"{repeats} links to files that are read already")
    depth = 1 if found["train"] else 0
    if labels is None:
        labels = _labels(kept, depth, where)
    if test_name is not None:
        options.check_own_test_split(f"a {test_name} split")
        return Layout(kept, labels, notes)
    if len(kept["train"]) == 1:
        return Layout({"train": kept["train"], "test": kept["train"]}, labels, notes, by_page=True)
    return Layout(_chosen(kept["train"], options, where, depth), labels, notes)


def is_split(name):
    """Whether the name of a folder is that of a split."""
    return name.lower() in _SPLIT_OF


def _top(name):
    """The first folder in a name, or ""."""
    return name.partition("/")[0] if "/" in name else ""


def _chosen(files, options, where, depth):
    """Chooses the test split by the names of the files, without the folder of the split."""
    names = [file.name.split("/", depth)[-1] for file in files]
    is_test = splits.choose_test(names, options.test_fraction, where)
    parts = {"train": [], "test": []}
    for file, is_chosen in zip(files, is_test, strict=True):
        parts["test" if is_chosen else "train"].append(file)
    return parts


def _once(parts):
    """Keeps each file once: in the test split if both have it, by its own name, not a link's."""
    seen, kept = set(), {}
    for split in ("test", "train"):
        chosen = set()
        for file in sorted(parts[split], key=lambda file: (file.is_link, file.name)):
            if file.identity is None or file.identity not in seen:
                chosen.add(file)
            seen.add(file.identity)
        kept[split] = [file for file in parts[split] if file in chosen]
    return kept


def _check_repeated(names, where):
    for name in names:
        if _top(f"{name}/").lower() in _SPLIT_OF and "/" not in name:
            raise ValueError(
                "The folder of a split must be no link to another folder that is read. "
                f"Received: {name} in {where}"
            )


def _check_no_splits(files, where):
    folders = {file.name.rpartition("/")[0] for file in files}
    for folder in sorted(folders):
        for part in folder.split("/"):
            if _LOOKS_LIKE_A_SPLIT.fullmatch(part.lower()):
                raise ValueError(
                    "Splits must be the folders train and test (or valid) right in the folder that "
                    "is given, and no class may be called like one. "
                    f"Received: {folder} in {where}"
                )


def _note_others(tops, used, notes, where):
    """Notes the folders beside the splits, and refuses those that could be classes or splits."""
    for top, number in sorted(tops.items()):
        if top in used.values():
            continue
        is_known = top.lower() in _SPLIT_OF
        if used["test"] is None or (not is_known and _LOOKS_LIKE_A_SPLIT.fullmatch(top.lower())):
            raise ValueError(
                "Beside train/ there must be test/ or valid/, and nothing that may be another "
                f"split or a class. Received: {where} with {top + '/' if top else 'pictures'} "
                "beside it"
            )
        notes.append(f"{number} in {top}/ not used" if top else f"{number} in no split not used")


def _labels(parts, depth, where):
    """{name: class}: the first folder in a name, below that of the split."""
    every = [file for files in parts.values() for file in files]
    classes = {file.name: _top(file.name.split("/", depth)[-1]) for file in every}
    loose = [name for name, label in classes.items() if not label]
    if not loose:
        return classes
    if len(loose) < len(every):
        raise ValueError(
            "Pictures must lie in sub-folders, which are the classes, or all in none. "
            f"Received: {where}/{loose[0]} in none, {len(every) - len(loose)} pictures in some"
        )
    return {}
