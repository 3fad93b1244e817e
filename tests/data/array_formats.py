"""Files of arrays as other libraries write them: what the table of formats says of them."""

import io
import struct
import zipfile

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
