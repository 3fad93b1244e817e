"""compress.py: pictures to a file and back, in two processes, and what it refuses."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from processes import assert_one_line, run_in_new_process, run_script

from pixel_cnn_pp import codec, sampling
from pixel_cnn_pp.codec import container
from pixel_cnn_pp.runs import checkpoints

RNG = np.random.default_rng(5)


@pytest.fixture
def without_xla(monkeypatch):
    """XLA compiles for seconds."""
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))


@pytest.fixture
def pictures(tmp_path):
    """Two grey pictures of 17 levels: one of four tiles, and a small one."""
    found = {}
    for name, sides in (("large.png", (11, 13)), ("small.png", (3, 8))):
        pixels = RNG.integers(0, 17, sides, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        found[tmp_path / name] = pixels
    return found


def test_two_processes_with_xla_give_back_the_very_same_pictures(
    unconditional_run, pictures, tmp_path
):
    path, folder = tmp_path / "two.pcn", tmp_path / "back"
    arguments = ("--out", path, "--noverify", "--nocompare", "--batch_size", 2)
    done = run_in_new_process("compress.py", unconditional_run, *pictures, *arguments)
    assert done.returncode == 0, done.stderr
    size = path.stat().st_size
    num_dims = 11 * 13 + 3 * 8
    assert done.stdout.startswith(
        f"Wrote 2 pictures to {path}: {size} bytes, {8 * size / num_dims:.4f} bits/dim; "
    )
    done = run_in_new_process(
        "compress.py", unconditional_run, "--decompress", path, "--out", folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Wrote 2 of 2 pictures to {folder}\n"
    for index, pixels in enumerate(pictures.values()):
        with Image.open(folder / f"{index}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels, strict=True)


def test_the_table_and_the_bars_compare_with_the_likelihood_and_with_other_codecs(
    unconditional_run, pictures, tmp_path, without_xla
):
    path, sizes = tmp_path / "two.pcn", tmp_path / "sizes.csv"
    arguments = ("--out", path, "--sizes", sizes, "--batch_size", 4)
    done = run_script("compress.py", unconditional_run, *pictures, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"Wrote 2 pictures to {path}, and decompressed them to the same: " in done.stdout
    rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
    num_dims = 11 * 13 + 3 * 8
    for name in ("-log2 p", "this file", "PNG", "WebP", "JPEG XL"):
        numbers = list(map(float, rows[name]))
        assert len(numbers) == 6
        for size, rate in zip(numbers[::2], numbers[1::2], strict=True):
            assert abs(8 * size / num_dims - rate) < 8 / num_dims  # whole bytes are printed
    assert float(rows["this file"][0]) == path.stat().st_size
    for name in ("PNG", "WebP", "JPEG XL"):
        assert re.search(rf"this is [\d.]+% (shorter|longer) than {name}, without", done.stdout)
    with open(sizes, newline="") as file:
        columns = list(csv.DictReader(file))
    assert [int(row["num_dims"]) for row in columns] == [11 * 13, 3 * 8]
    for row in columns:
        # The pixels of a file alone are the code length in words; the likelihood promises it.
        own = 8 * (int(row["bytes"]) - int(row["header_bytes"]))
        assert float(row["code_bits"]) <= own < float(row["code_bits"]) + 32
        assert abs(float(row["code_bits"]) / float(row["likelihood_bits"]) - 1) < 1e-3
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.size[0] > picture.size[1] > 100


def test_a_set_comes_back_as_an_array_with_its_labels(trained_run, tmp_path, without_xla):
    images = RNG.integers(0, 17, (3, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=[4, 0, 9])
    path, folder = tmp_path / "three.pcn", tmp_path / "back"
    arguments = ("--out", path, "--nocompare", "--batch_size", 2)
    done = run_script("compress.py", trained_run, tmp_path / "images.npz", *arguments)
    assert done.returncode == 0, done.stderr
    decompress = ("compress.py", trained_run, "--decompress", path, "--out", folder)
    assert run_script(*decompress).stdout == f"Wrote 3 of 3 pictures to {folder}\n"
    with np.load(folder / "images.npz") as found:
        np.testing.assert_array_equal(found["images"], images, strict=True)
        np.testing.assert_array_equal(found["labels"], [4, 0, 9])
    # The last image is a chunk of its own, which is damaged now.
    path.write_bytes(path.read_bytes()[:-1])
    assert_one_line(run_script(*decompress), "a truncated or altered file")
    done = run_script(*decompress, "--salvage")
    assert done.stdout == (
        f"Lost: chunk 1 is truncated or altered\nWrote 2 of 3 pictures to {folder}\n"
    )
    with np.load(folder / "images.npz") as found:
        np.testing.assert_array_equal(found["images"], images[:2], strict=True)
        np.testing.assert_array_equal(found["index"], [0, 1])


def test_labels_of_pictures_are_given_and_kept(trained_run, pictures, tmp_path, without_xla):
    path, folder = tmp_path / "two.pcn", tmp_path / "back"
    arguments = ("--out", path, "--noverify", "--nocompare", "--batch_size", 2)
    done = run_script("compress.py", trained_run, *pictures, *arguments)
    assert_one_line(done, "`labels` must say the classes of pictures that have none")
    done = run_script("compress.py", trained_run, *pictures, *arguments, "--labels", "1,2,3")
    assert_one_line(done, "one class, or one for each of 2 pictures. Received: 3 classes")
    done = run_script("compress.py", trained_run, *pictures, *arguments, "--labels", "7")
    assert done.returncode == 0, done.stderr
    assert container.unpack(path.read_bytes())[0].labels == (7, 7)
    done = run_script("compress.py", trained_run, "--decompress", path, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "labels.csv").read_text() == "picture,label\n0,7\n1,7\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "OUT"], "PICTURES must be at least one file"),
        (["test"], "`out` must name what to write"),
        (["missing.png", "--out", "OUT"], "missing.png"),
        (["test", "--out", "OUT", "--salvage"], "`salvage` must be left out"),
        (["test", "--out", "OUT", "--labels", "1"], "`labels` must be left out"),
        (["test", "--out", "OUT.png"], "`plot` must end in .png, and not be `out`"),
        (["test", "--out", "OUT", "--nocompare", "--plot", "a.png"], "`plot` must be left out"),
        (["test", "--out", "OUT", "--sizes", "sizes.txt"], "must end in .npz or .csv"),
        (["test", "--out", "OUT", "--tile_size", "a"], "`image_size` must be a number"),
        (["test", "--decompress", "FILE", "--out", "OUT"], "PICTURES must be left out"),
        (["--decompress", "FILE", "--out", "OUT", "--labels", "1"], "it belongs to compressing"),
        (["--decompress", "missing.pcn", "--out", "OUT"], "missing.pcn"),
        (["--decompress", "FILE", "--out", "OUT"], "must be one that `compress` made"),
    ],
)
def test_a_mistake_is_one_line(unconditional_run, tmp_path, arguments, message):
    (tmp_path / "FILE").write_bytes(b"no such file, but long enough to be one")
    places = {name: str(tmp_path / name) for name in ("OUT", "OUT.png", "FILE", "sizes.txt")}
    arguments = [places.get(argument, argument) for argument in arguments]
    assert_one_line(run_script("compress.py", unconditional_run, *arguments), message)


def test_a_run_without_a_likelihood_is_one_line(energy_run, tmp_path):
    done = run_script("compress.py", energy_run, "test", "--out", tmp_path / "out")
    assert_one_line(done, "has no likelihood")


def test_another_run_cannot_decompress(unconditional_run, copied_run, tmp_path, without_xla):
    model = checkpoints.load(unconditional_run)
    images = RNG.integers(0, 17, (1, 8, 8, 1), np.uint8)
    (tmp_path / "one").write_bytes(codec.compress(model, images, batch_size=2))
    done = run_script(
        "compress.py", copied_run, "--decompress", tmp_path / "one", "--out", tmp_path
    )
    assert_one_line(done, "must be decoded with the configuration that it was made with")
