"""Finds the files of a checkpoint."""

import glob
import pathlib
import re
import zipfile

import tensorflow as tf

_FILE_OF_V2 = re.compile(r"(.+)\.(?:index|meta|data-\d{5}-of-\d{5})")


def find(path):
    """Finds the prefix, or the single file, of the checkpoint that a path means.

    Raises:
      ValueError: If there is no checkpoint.
    """
    if path.is_dir():
        path = path / _name_in(path)
    file_of = _FILE_OF_V2.fullmatch(path.name)
    if file_of:
        path = path.with_name(file_of[1])
    has_index = path.with_name(f"{path.name}.index").is_file()
    has_data = any(path.parent.glob(f"{glob.escape(path.name)}.data-*-of-*"))
    if has_index != has_data:
        there, lacking = ("index", "data-00000-of-00001") if has_index else ("data-*", "index")
        raise ValueError(
            "A checkpoint must have its .index and its .data file beside each other. "
            f"Received: {path}.{there} without {path.name}.{lacking}"
        )
    if not has_index and not path.is_file():
        raise ValueError(
            "A checkpoint must be a file, a prefix of two (.index and .data), or a directory that "
            f"holds one. Received: {path} (no such file)"
        )
    if not has_index and zipfile.is_zipfile(path):
        raise ValueError(f"A checkpoint must be unpacked first. Received: {path}, a zip file")
    return path


def _name_in(directory):
    """Name of the only checkpoint in a directory, or of the one that the file "checkpoint" names.

    TensorFlow writes that file. It may hold an absolute path, which is wrong after the directory
    was moved, so only the name in it is used.
    """
    note = tf.train.get_checkpoint_state(str(directory))
    if note is not None:
        return pathlib.Path(note.model_checkpoint_path).name
    names = {path.name.removesuffix(".index") for path in directory.glob("*.index")}
    names |= {path.name for path in directory.glob("*.ckpt")}
    if len(names) != 1:
        raise ValueError(
            "A directory must hold one checkpoint, otherwise name the checkpoint itself. "
            f"Received: {directory} with {first(sorted(names)) or 'none'}"
        )
    return names.pop()


def first(names):
    """The first three names, and the number of the others, as text. Empty for no names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
