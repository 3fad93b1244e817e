import os
import shutil

import pytest
from release import (
    RECORDED_FILES,
    V2_FILES,
    copy_v1,
    copy_v2,
    fresh_pair,
    one_line,
)

import pixel_cnn_pp as pcnn
from pixel_cnn_pp.tf1_import import ReleaseCheckpoint


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_checkpoint_is_found_by_its_prefix_and_by_each_of_its_files(ending):
    path = f"{RECORDED_FILES['V2']}{ending}"
    assert ReleaseCheckpoint(path).path == RECORDED_FILES["V2"]


@pytest.mark.parametrize("copy", [copy_v1, copy_v2])
def test_the_one_checkpoint_of_a_directory_is_found(copy, tmp_path):
    path = copy(tmp_path)
    (tmp_path / "test_bpd_cifar.npz").write_bytes(b"")
    assert ReleaseCheckpoint(tmp_path).path == path


def test_of_several_checkpoints_the_one_that_tensorflow_notes_is_found(tmp_path):
    copy_v1(tmp_path)
    copy_v2(tmp_path, "first.ckpt")
    path = copy_v2(tmp_path, "second.ckpt")
    message = "one checkpoint, .* with first.ckpt, older.ckpt, second.ckpt$"
    with pytest.raises(ValueError, match=message) as caught:
        ReleaseCheckpoint(tmp_path)
    one_line(caught)
    # An absolute path, as the release writes it, of before the directory was moved.
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/old/save/second.ckpt"')
    assert ReleaseCheckpoint(tmp_path).path == path


def test_a_directory_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"one checkpoint, .* Received: {tmp_path} with none"):
        pcnn.load_release(tmp_path)


def test_a_path_to_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"must be a file, .* Received: {tmp_path}/no.ckpt "):
        pcnn.load_release(tmp_path / "no.ckpt")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (".index", r"Received: .*/params.ckpt.data-\* without params.ckpt.index"),
        (".data-00000-of-00001", "params.ckpt.index without params.ckpt.data-00000-of-00001"),
    ],
)
def test_a_file_that_is_missing_is_named(lost, message, tmp_path):
    path = copy_v2(tmp_path)
    os.remove(f"{path}{lost}")
    for given in (path, f"{path}.index", f"{path}.data-00000-of-00001"):
        with pytest.raises(ValueError, match=message) as caught:
            pcnn.load_release(given)
        one_line(caught)


@pytest.mark.parametrize("num_bytes", [0, 1, 10_000, -1])
@pytest.mark.parametrize("ending", V2_FILES)
def test_a_checkpoint_of_two_files_that_was_cut_short_is_one_line(ending, num_bytes, tmp_path):
    path = copy_v2(tmp_path)
    file = tmp_path / ending.replace("init_train_cond.ckpt", "params.ckpt")
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, ") as caught:
        # The file ends with one of the variables, and either half holds some.
        for weights in ("raw", "ema"):
            pcnn.load_release(path, weights)
        checkpoint = ReleaseCheckpoint(path)
        checkpoint.load_optimizer(*fresh_pair(checkpoint.config()))
    one_line(caught)


@pytest.mark.parametrize("num_bytes", [0, 1, 10_000, 300_000, -1])
def test_a_checkpoint_of_one_file_that_was_cut_short_is_one_line(num_bytes, tmp_path):
    path = tmp_path / "params.ckpt"
    path.write_bytes(RECORDED_FILES["V1"].read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, it ") as caught:
        pcnn.load_release(path)
    one_line(caught)


def test_a_bit_that_fell_over_is_one_line(tmp_path):
    for path, file in (
        (copy_v2(tmp_path), tmp_path / "params.ckpt.data-00000-of-00001"),
        (copy_v1(tmp_path), tmp_path / "older.ckpt"),
    ):
        data = bytearray(file.read_bytes())
        data[200_000] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, ") as caught:
            for weights in ("raw", "ema"):
                pcnn.load_release(path, weights)
            checkpoint = ReleaseCheckpoint(path)
            checkpoint.load_optimizer(*fresh_pair(checkpoint.config()))
        one_line(caught)


def test_a_file_of_another_kind_is_one_line(tmp_path):
    path = tmp_path / "params.ckpt"
    path.write_text("a text\n" * 100)
    with pytest.raises(ValueError, match=f"one of TensorFlow. Received: {path}, it ") as caught:
        pcnn.load_release(path)
    one_line(caught)


def test_a_checkpoint_in_a_zip_file_is_to_be_unpacked(tmp_path):
    archive = shutil.make_archive(tmp_path / "params", "zip", tmp_path)
    with pytest.raises(ValueError, match=f"unpacked first. Received: {archive}"):
        pcnn.load_release(archive)
