"""Files of arrays as other libraries write them: what the table of formats says of them."""

import gzip
import io
import struct
import zipfile
import zlib

import handmade
import handmade_hdf5
import numpy as np

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 8, 12, 3), np.uint8)
LABELS = RANDOM.permutation(np.arange(30) % 3)


def npy(array):
    """An .npy by hand, big-endian if it has more than a byte."""
    kind = f"{'|' if array.itemsize == 1 else '>'}{array.dtype.kind}{array.itemsize}"
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {array.shape}}}"
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", 118) + header + array.astype(kind).tobytes()


def npz(arrays, compression):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy(array))
    return file.getvalue()


def both(**arrays):
    return {"images": IMAGES, "labels": LABELS, **arrays}


def write_bytes(content):
    return lambda path: path.write_bytes(content)


# (format of the table, the library that writes, what is special) -> (end of the file's name,
# function that writes the file to a path, whether it has labels).
ARRAYS = {
    ("NPY", "this project", ""): (".npy", write_bytes(npy(IMAGES)), False),
    ("NPZ", "this project", "stored"): (".npz", write_bytes(npz(both(), zipfile.ZIP_STORED)), True),
    ("NPZ", "this project", "packed"): (
        ".npz",
        write_bytes(npz(both(), zipfile.ZIP_DEFLATED)),
        True,
    ),
}


def idx(array):
    start = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return start + array.astype(np.uint8).tobytes()


def mnist_folder(path, packed):
    """A folder with the four files of MNIST: the last six images are the test split."""
    path.mkdir()
    for name, rows in (("train", slice(0, 24)), ("t10k", slice(24, 30))):
        for kind, array in (("images-idx3", IMAGES[..., 0]), ("labels-idx1", LABELS)):
            content, end = idx(array[rows]), ".gz" if packed else ""
            content = gzip.compress(content) if packed else content
            (path / f"{name}-{kind}-ubyte{end}").write_bytes(content)


def mat(path):
    """A .mat of version 5 by hand, with the axes of SVHN: [H, W, C, N]."""

    def element(kind, body):
        return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)

    def matrix(name, array, class_number, data_type):
        flags = struct.pack("<II", class_number, 0)
        dims = struct.pack(f"<{array.ndim}i", *array.shape)
        parts = element(6, flags) + element(5, dims) + element(1, name.encode())
        return element(14, parts + element(data_type, array.tobytes(order="F")))

    start = b"MATLAB 5.0 MAT-file, by hand".ljust(116) + b"\0" * 8 + struct.pack("<H2s", 256, b"IM")
    labels = (LABELS[:, np.newaxis] + 1).astype(np.float64)
    content = matrix("X", np.moveaxis(IMAGES, 0, -1), 9, 2) + matrix("y", labels, 6, 9)
    path.write_bytes(start + content)


ARRAYS |= {
    ("IDX (MNIST)", "this project", "packed"): ("", lambda path: mnist_folder(path, True), True),
    ("IDX (MNIST)", "this project", "plain"): ("", lambda path: mnist_folder(path, False), True),
    ("HDF5", "this project", ""): (".h5", write_bytes(handmade_hdf5.file(both())), True),
    ("MAT", "this project", ""): (".mat", mat, True),
}


def pngs():
    """{name: bytes} of the images as pictures in folders of their classes."""
    return {
        f"set/{label}/{number:02}.png": handmade.png(image, 8, 2)
        for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    }


def tar(members, packed):
    """A tar in the format of POSIX by hand."""
    out = b""
    for name, content in members.items():
        head = bytearray(512)
        head[:100] = name.encode().ljust(100, b"\0")
        head[100:156] = (
            b"0000644\0"
            + b"0000000\0" * 2
            + b"%011o\0" % len(content)
            + b"0" * 11
            + (b"\0" + b" " * 8)
        )
        head[156:157], head[257:265] = b"0", b"ustar\x0000"
        head[148:156] = b"%06o\0 " % sum(head)
        out += bytes(head) + content + b"\0" * (-len(content) % 512)
    out += b"\0" * 1024
    return gzip.compress(out) if packed else out


def zip_(members):
    """A zip of stored members by hand."""
    out, directory = b"", b""
    for name, content in members.items():
        sizes = struct.pack("<III", zlib.crc32(content), len(content), len(content))
        rest = struct.pack("<HH", len(name), 0)
        about = struct.pack("<HHHHH", 20, 0, 0, 0, 33) + sizes + rest
        directory += b"PK\1\2" + struct.pack("<H", 20) + about
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(out)) + name.encode()
        out += b"PK\3\4" + about + name.encode() + content
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(out), 0)
    return out + directory + b"PK\5\6" + end


def webdataset():
    members = {}
    for number, (name, content) in enumerate(pngs().items()):
        members[f"{number:06}.png"] = content
        members[f"{number:06}.cls"] = name.split("/")[1].encode()
        members[f"{number:06}.json"] = b"{}"
    return members


def parquet(path):
    import polars

    rows = [{"bytes": content, "path": name} for name, content in pngs().items()]
    polars.DataFrame({"image": rows, "label": LABELS}).write_parquet(path)


ARRAYS |= {
    ("tar", "this project", "plain"): (".tar", write_bytes(tar(pngs(), False)), True),
    ("tar", "this project", "packed"): (".tar.gz", write_bytes(tar(pngs(), True)), True),
    ("tar of webdataset", "this project", ""): (
        ".tar",
        write_bytes(tar(webdataset(), False)),
        True,
    ),
    ("zip", "this project", ""): (".zip", write_bytes(zip_(pngs())), True),
    ("parquet", "polars", ""): (".parquet", parquet, True),
}
