"""What an array of a file is, by its name: images or labels, of which split."""

import re

# The words of a name, in any case. They stand apart, or together as in `xtrain`.
_SPLITS = {
    "train": ("train", "training", "trn", "tr"),
    "test": ("test", "testing", "tst", "te", "t10k"),
    "valid": ("valid", "validation", "val", "dev"),
}
_KINDS = {
    "images": ("images", "image", "imgs", "img", "x", "data", "pictures", "pixels"),
    "labels": ("labels", "label", "y", "targets", "target", "classes", "class"),
}
_MEANINGS = {
    word: (part, meaning)
    for part, table in (("split", _SPLITS), ("kind", _KINDS))
    for meaning, words in table.items()
    for word in words
}
# What is said besides in the names of usual files, such as train_32x32 and idx3-ubyte.
_FILLING = re.compile(r"set|ds|npy|ubyte|idx\d|\d+x\d+|\d+|of")
_LONGEST_FIRST = "|".join(sorted(_MEANINGS, key=len, reverse=True))
_TOGETHER = re.compile(f"({_LONGEST_FIRST})({_LONGEST_FIRST})")


def role(name, is_file=False):
    """What the array of a name is.

    Args:
      name: Name of an array, such as "x_train", "images" or "train/labels".
      is_file: Whether it is the name of a file, in which other words do not matter.
    Returns:
      Pair (split, kind). The split is "train", "test", "valid" or None; the kind is "images",
      "labels" or None. (None, None) if the name is another one.

    >>> role("X_train"), role("label"), role("train_names")
    (('train', 'images'), (None, 'labels'), (None, None))
    """
    found = {"split": None, "kind": None}
    for word in _words(name):
        if word not in _MEANINGS:
            if is_file or _FILLING.fullmatch(word):
                continue
            return None, None
        part, meaning = _MEANINGS[word]
        if found[part] not in (None, meaning):
            return None, None
        found[part] = meaning
    return found["split"], found["kind"]


def _words(name):
    # A capital begins a word: trainImages.
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    for word in re.split(r"[^a-z0-9]+", spaced.lower()):
        together = _TOGETHER.fullmatch(word)
        yield from together.groups() if together else [word] if word else []


def arranged(members, where):
    """Chooses the images and labels of each split among the arrays of a file.

    Args:
      members: {name: Member} of at least one array.
      where: Path of the file, for messages.
    Returns:
      {split: (name of the images, name of the labels or None)}. The only key is None where the file
      has no splits. Otherwise the keys are "train" and "test" or "valid", or one of them.
    Raises:
      ValueError: If no array is known to hold images, or several may.
    """
    found = {}
    for name in members:
        part, kind = members[name].role or role(name)
        if kind is None and part is not None and len(members[name].shape) >= 3:
            kind = "images"  # An array that is called `train`.
        if kind is not None:
            found.setdefault((part, kind), []).append(name)
    numbered = [f"arr_{number}" for number in range(len(members))]  # From np.savez(file, a, b).
    if list(members) == numbered and len(members) <= 2:
        found = {(None, kind): [n] for kind, n in zip(("images", "labels"), numbered, strict=False)}
    if len(members) == 1 and not any(kind == "images" for _, kind in found):
        found = {(None, "images"): list(members)}
    splits = {part for part, kind in found if kind == "images"}
    if not splits or (None in splits and len(splits) > 1):
        raise ValueError(
            "A file of arrays must hold `images`, perhaps with `labels`; or `train_images` and "
            "`test_images`, perhaps with `train_labels` and `test_labels`; or one array. "
            f"Received: {where} with {described(members)}"
        )
    chosen = {}
    for split in splits:
        names = [
            # What is called by the very word goes before its synonyms.
            [name for name in several if word in name.lower()] or several
            for word, several in (
                ("image", found[split, "images"]),
                ("label", found.get((split, "labels"), [])),
            )
        ]
        for several in names:
            if len(several) > 1:
                raise ValueError(
                    "A file of arrays must hold one array of images and one of labels a split. "
                    f"Received: {where} with {' and '.join(several)}"
                )
        chosen[split] = (names[0][0], next(iter(names[1]), None))
    return chosen


def described(members):
    """The names and shapes of arrays in words, for messages."""
    if not members:
        return "no arrays"
    each = [f"{name or 'an array'} {member.shape}" for name, member in members.items()]
    return ", ".join(each[:8]) + (", ..." if len(each) > 8 else "")
