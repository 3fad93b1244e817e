import io
import os
import zipfile

import numpy as np
import pytest

from pixel_cnn_pp.data import array_files

ARRAYS = {"images": np.arange(24, dtype=np.uint16).reshape(2, 3, 4), "labels": np.array([1, 0])}


def values(path):
    with array_files.opened(path) as members:
        return {name: np.array(member.load()) for name, member in members.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["a.npz", "a.NPZ", "a.npy", "a"])
def test_an_npz_is_one_whatever_its_name(save, name, tmp_path):
    with open(tmp_path / name, "wb") as file:
        save(file, **ARRAYS)
    found = values(tmp_path / name)
    assert list(found) == list(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("name", ["a.npy", "a.NPY", "a.npz"])
@pytest.mark.parametrize("order", "CF")
def test_an_npy_is_one_whatever_its_name(name, order, tmp_path):
    with open(tmp_path / name, "wb") as file:
        np.save(file, np.asarray(ARRAYS["images"], order=order))
    np.testing.assert_array_equal(values(tmp_path / name)[""], ARRAYS["images"])


def test_an_array_of_an_npz_is_mapped_and_not_held_in_memory(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **ARRAYS)
    with array_files.opened(tmp_path / "a.npz", tmp_path) as members:
        assert os.listdir(tmp_path) != ["a.npz"]  # a folder beside for what is unpacked
        assert isinstance(members["images"].load(), np.memmap)
        assert (members["images"].shape, members["images"].dtype) == ((2, 3, 4), np.uint16)
    assert os.listdir(tmp_path) == ["a.npz"]


def header(shape):
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize(
    "content",
    [
        header((10**13, 32, 32, 3)),  # claims 30 PB
        header((4, 8)) + bytes(16),  # cut short
        header((4, 8))[:40],
        b"\x93NUMPY\x07\x00" + bytes(50),
        b"hello",
        b"",
    ],
)
def test_a_damaged_file_is_one_line(name, content, tmp_path):
    path = tmp_path / name
    if name == "a.npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"Arrays must lie in .*Received: .*{name}") as caught:
        values(path)
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_is_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array([{}]), **ARRAYS)
    with array_files.opened(tmp_path / "a.npz") as members:
        assert members["images"].load().shape == (2, 3, 4)
        with pytest.raises(ValueError, match=r"in a whole file, .*Received: .*a.npz"):
            members["names"].load()


def test_every_flipped_byte_of_an_npz_is_one_line_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **ARRAYS)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = values(path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            for name in ARRAYS.keys() & found.keys():
                np.testing.assert_array_equal(found[name], ARRAYS[name])


def test_what_is_no_file_is_an_os_error_or_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz"):
        values(tmp_path / "none.npz")
    assert values(tmp_path) == {}
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ValueError, match=r"in a file. Received: .*pipe.npy, which is none"):
        values(tmp_path / "pipe.npy")
