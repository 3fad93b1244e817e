"""Writes an HDF5 file by its specification: version 0, a root group of contiguous data sets."""

import struct

_UNDEFINED = b"\xff" * 8
_START = 96  # Of the superblock, which ends with the entry of the root group.


def _message(kind, body):
    body += b"\0" * (-len(body) % 8)
    return struct.pack("<HHB3x", kind, len(body), 0) + body


def _object(*messages):
    body = b"".join(messages)
    return struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body


def _data_set(array, place):
    """The header of a data set whose values lie at a place in the file."""
    space = struct.pack("<BBB5x", 1, array.ndim, 0) + struct.pack(f"<{array.ndim}Q", *array.shape)
    sign = 8 if array.dtype.kind == "i" else 0
    kind = struct.pack("<B3BIHH", 16, sign, 0, 0, array.itemsize, 0, 8 * array.itemsize)
    layout = struct.pack("<BBQQ", 3, 1, place, array.nbytes)
    fill = bytes([2, 2, 2, 0])
    return _object(_message(1, space), _message(3, kind), _message(5, fill), _message(8, layout))


def file(arrays):
    """The bytes of an HDF5 file of some integer arrays, {name: array}."""
    place, links, body = _START, [_message(2, b"\0\0" + 2 * _UNDEFINED), _message(10, b"\0\0")], b""
    for name, array in arrays.items():
        header = _data_set(array, 0)
        header = _data_set(array, place + len(header))
        link = bytes([1, 0, len(name)]) + name.encode() + struct.pack("<Q", place)
        links.append(_message(6, link))
        part = header + array.tobytes()
        part += b"\0" * (-len(part) % 8)
        body, place = body + part, place + len(part)
    root = _object(*links)
    superblock = (
        b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    )
    superblock += (
        struct.pack("<Q", 0) + _UNDEFINED + struct.pack("<Q", place + len(root)) + _UNDEFINED
    )
    superblock += struct.pack("<QQII16x", 0, place, 0, 0)
    assert len(superblock) == _START
    return superblock + body + root
