"""How files are written that a person may have already."""

import errno
import os
import re

import pytest

from pixel_cnn_pp import files


def full(file):
    file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "table.csv"
    for text in (b"first", b"second"):
        files.replace(path, lambda file, text=text: file.write(text))
        assert path.read_bytes() == text
    assert os.listdir(path.parent) == ["table.csv"]


def test_of_files_that_belong_together_none_is_replaced_where_one_fails(tmp_path):
    paths = [tmp_path / name for name in ("drawn.png", "drawn.npz")]
    for path in paths:
        path.write_bytes(b"before")
    message = rf"No space left on device: '{re.escape(str(paths[1]))}'$"
    with pytest.raises(OSError, match=message) as caught:
        files.replace_all({paths[0]: lambda file: file.write(b"after"), paths[1]: full})
    assert caught.value.errno == errno.ENOSPC
    assert [path.read_bytes() for path in paths] == [b"before", b"before"]
    assert sorted(os.listdir(tmp_path)) == ["drawn.npz", "drawn.png"]


def test_a_link_goes_on_pointing_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to("target")
    files.replace(tmp_path / "link", lambda file: file.write(b"after"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"after"


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    files.replace(path, lambda file: file.write(b"text"))
    assert path.read_bytes() == b"text"
