"""Archives of pictures: tar, also as webdataset names its members, zip, and Hugging Face's parquet.

An archive is read from its start to its end, once for the headers and once for each split.
"""

import collections
import dataclasses
import json
import tarfile
import zipfile

from pixel_cnn_pp.data import listing, scientific
from pixel_cnn_pp.data.listing import ListedFile

_ENDINGS = {"tar": (".tar", ".tar.gz", ".tgz"), "zip": (".zip",), "parquet": (".parquet",)}


def kind_of(path):
    """What archive a file is: "tar", "zip", "parquet", or None."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK"):
        return "zip"
    is_packed = start.startswith(b"\x1f\x8b") and path.name.lower().endswith(_ENDINGS["tar"])
    return "tar" if is_packed or start[257:262] == b"ustar" else None


def shards(folder):
    """The archives of one kind that lie in a folder: paths, sorted by name. Or an empty list."""
    for endings in _ENDINGS.values():
        found = [path for path in sorted(folder.iterdir()) if path.name.endswith(endings)]
        if found:
            return found
    return []


@dataclasses.dataclass(frozen=True)
class Archive:
    """The pictures of one archive.

    Attributes:
      path: Its path.
      files: List of ListedFile, in the order of the archive.
      labels: {name of a file: label}, from members or a column. Empty if there are none.
      passed_over: {ending: number of members}, of members that are no pictures.
    """

    path: object
    files: list
    labels: dict
    passed_over: collections.Counter


def opened(path):
    """Lists the pictures of an archive.

    Args:
      path: Path of a tar, zip or parquet file.
    Returns:
      Archive.
    Raises:
      ValueError: If it is damaged, or holds no pictures.
      OSError: If it cannot be read.
    """
    if kind_of(path) == "parquet":
        names, labels, passed_over = _listed_parquet(path)
    else:
        names, labels, passed_over = [], {}, collections.Counter()
        for name, content in _members(path, lambda name: name.endswith(".cls")):
            if listing.is_hidden(name):
                continue
            if name.endswith(".cls"):
                labels[_sample(name)] = content().decode("utf-8", "replace").strip()
            elif listing.is_picture(name):
                names.append(name)
            else:
                passed_over[listing.ending(name)] += 1
        if labels:
            labels = _labels_of_samples(names, labels, path)
    if not names:
        raise ValueError(f"An archive must hold pictures. Received: {path} with none")
    return Archive(path, [ListedFile(name, name) for name in names], labels, passed_over)


def encoded(path, names):
    """Yields the bytes of pictures of an archive, in their order in it.

    Args:
      path: Path of the archive.
      names: Their names, in the order of the archive.
    """
    wanted = set(names)
    if kind_of(path) == "parquet":
        yield from (content for name, content in _parquet_items(path) if name in wanted)
    else:
        for name, content in _members(path, wanted.__contains__):
            if name in wanted:
                yield content()


def _sample(name):
    """The part of a name that a sample's members share: up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _labels_of_samples(names, labels, path):
    """{name of a picture: label of its sample}."""
    samples = [_sample(name) for name in names]
    if len(set(samples)) < len(samples) or not set(samples) <= labels.keys():
        raise ValueError(
            "Where samples of a webdataset have a .cls, each must have one, and one picture. "
            f"Received: {path} with {len(names)} pictures and {len(labels)} of .cls"
        )
    return {name: labels[sample] for name, sample in zip(names, samples, strict=True)}


def _members(path, is_wanted):
    """Yields (name, function that reads it) of the files in a tar or zip, each name once.

    The function may be called before the next member is asked for.
    """
    seen = set()
    try:
        if kind_of(path) == "zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not member.is_dir() and member.filename not in seen:
                        seen.add(member.filename)
                        yield member.filename, lambda member=member: _unpacked(archive, member)
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.name not in seen:
                        seen.add(member.name)
                        yield (
                            member.name.removeprefix("./"),
                            lambda member=member: archive.extractfile(member).read(),
                        )
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(path, error) from None
    except GeneratorExit:
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _unpacked(archive, member):
    """The bytes of a member of a zip; none if it is damaged, which then is no picture."""
    try:
        return archive.read(member)
    except Exception:
        return b""


def _damaged(path, error):
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"An archive must be whole. Received: {path} ({reason})")


def _image_column(schema, path):
    """The name of the column of a parquet that holds images: a struct with bytes."""
    import pyarrow as pa

    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return field.name
    raise ValueError(
        "A parquet file must have a column of images, as Hugging Face datasets has them. "
        f"Received: {path} with {', '.join(schema.names)}"
    )


def _parquet(path):
    with scientific.needed_for("parquet"):
        import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except Exception as error:
        raise _damaged(path, error) from None


def _listed_parquet(path):
    """Names, labels and what is passed over, of a parquet."""
    file = _parquet(path)
    schema = file.schema_arrow
    _image_column(schema, path)
    names = [f"{number:08}" for number in range(file.metadata.num_rows)]
    column = next(
        (name for name in ("label", "fine_label", "labels") if name in schema.names), None
    )
    if column is None:
        return names, {}, collections.Counter()
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(column, {})
    classes = feature.get("names")
    values = file.read(columns=[column])[column].to_pylist()
    if any(value is None for value in values):
        raise ValueError(f"Every image must have a label, or none. Received: {path} with some")
    labels = [str(classes[value] if classes else value) for value in values]
    return names, dict(zip(names, labels, strict=True)), collections.Counter()


def _parquet_items(path):
    file = _parquet(path)
    column, number = _image_column(file.schema_arrow, path), 0
    try:
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for item in batch.column(0).to_pylist():
                yield f"{number:08}", (item or {}).get("bytes") or b""
                number += 1
    except GeneratorExit:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
