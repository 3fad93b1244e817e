import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp.data import celeba, store

RANDOM = np.random.default_rng(0)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def load_both(load, data_dir, image_size=None):
    return [load(split, data_dir, image_size) for split in store.SPLITS]


PARTITION = {f"{number:06}.jpg": number % 3 for number in range(1, 31)}


def faces():
    """{name: pixels}, smooth, as JPEG wants them."""
    small = RANDOM.integers(0, 256, (len(PARTITION), 9, 8, 3), np.uint8)
    return {
        name: np.asarray(Image.fromarray(pixels).resize((178, 218)))
        for name, pixels in zip(PARTITION, small, strict=True)
    }


def write_celeba(root, layout):
    """CelebA as people have it; returns {name: pixels as they are in the file}."""
    files = {name: encoded(pixels, "JPEG", quality=95) for name, pixels in faces().items()}
    place, inner, ending = {
        "flat": ("", "img_align_celeba", "txt"),
        "official": ("Eval", "Img/img_align_celeba", "txt"),
        "kaggle": ("", "img_align_celeba/img_align_celeba", "csv"),
        "zip": ("", "img_align_celeba", "txt"),
    }[layout]
    (root / place).mkdir(parents=True, exist_ok=True)
    lines = [
        f"{name},{part}" if ending == "csv" else f"{name} {part}"
        for name, part in PARTITION.items()
    ]
    lines = ["image_id,partition", *lines] if ending == "csv" else lines
    (root / place / f"list_eval_partition.{ending}").write_text("\n".join(lines) + "\n")
    if layout == "zip":
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{inner}/{name}", data)
    else:
        (root / inner).mkdir(parents=True)
        for name, data in files.items():
            (root / inner / name).write_bytes(data)
    return {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in files.items()}


def averaged_in_half(pixels):
    """A picture made half as large by Pillow's bilinear filter, in slow NumPy.

    The filter is a triangle of half-width 2 pixels around the middle of each pair, so 1/8, 3/8,
    3/8, 1/8 over four pixels, and 3/7, 3/7, 1/7 at the edges; each direction is rounded.
    """
    for axis in (1, 0):
        pixels = np.moveaxis(pixels.astype(float), axis, 0)
        size = len(pixels) // 2
        rows = []
        for row in range(size):
            weights = {2 * row - 1: 1, 2 * row: 3, 2 * row + 1: 3, 2 * row + 2: 1}
            weights = {at: weight for at, weight in weights.items() if 0 <= at < len(pixels)}
            total = sum(weights.values())
            rows.append(sum(weight / total * pixels[at] for at, weight in weights.items()))
        pixels = np.moveaxis(np.floor(np.array(rows) + 0.5), 0, axis)
    return pixels


@pytest.mark.parametrize(
    ("layout", "place"), [("flat", ""), ("official", "celeba"), ("kaggle", ""), ("zip", "celeba")]
)
def test_celeba_is_cropped_and_made_smaller_as_in_the_literature(layout, place, tmp_path):
    pixels = write_celeba(tmp_path / place, layout)
    train, test = load_both(celeba.load_celeba, tmp_path, 148)
    for stored, part in ((train, 0), (test, 1)):
        # Rows 40 to 187, columns 15 to 162; part 1 is the validation split.
        expected = [pixels[name][40:188, 15:163] for name in PARTITION if PARTITION[name] == part]
        np.testing.assert_array_equal(stored.images, expected)
        assert stored.labels is None and stored.num_levels == 256
    assert train.description.startswith("10 images, the training split of CelebA, from ")
    half = celeba.load_celeba("test", tmp_path, 74)
    expected = [averaged_in_half(image) for image in test.images]
    # Pillow's weights have 22 bits: a sum at the edge of rounding may fall to the other side.
    assert np.abs(half.images - np.array(expected)).max() <= 1
    assert np.mean(half.images != np.array(expected)) < 1e-2
    assert celeba.load_celeba("test", tmp_path, None).images.shape == (10, 64, 64, 3)


def test_a_face_that_is_missing_or_broken_is_named(tmp_path):
    write_celeba(tmp_path, "flat")
    (tmp_path / "img_align_celeba" / "000003.jpg").unlink()
    (tmp_path / "img_align_celeba" / "000004.jpg").write_bytes(b"cut")
    train, test = load_both(celeba.load_celeba, tmp_path, 16)
    assert "9 images; 1 left out as unreadable: 000003.jpg (No such file" in train.description
    assert "9 images; 1 left out as unreadable: 000004.jpg (cannot identify" in test.description


def test_a_celeba_that_is_not_whole_is_one_line(tmp_path):
    write_celeba(tmp_path, "flat")
    partition = tmp_path / "list_eval_partition.txt"
    for text, image_size, message in (
        ("000001.jpg 3\n", 64, "a file and 0, 1 or 2 a line. Received: .*partition.txt with other"),
        (partition.read_text(), 152, r"\[1, 148\] for 'celeba'. Received: image_size=152"),
    ):
        partition.write_text(text)
        with pytest.raises(ValueError, match=message):
            celeba.load_celeba("train", tmp_path, image_size)
    Image.new("RGB", (100, 100)).save(tmp_path / "img_align_celeba" / "000003.jpg")
    with pytest.raises(
        ValueError, match=r"aligned ones, 218 x 178. Received: 000003.jpg of 100 x 1"
    ):
        celeba.load_celeba("train", tmp_path, None)
    partition.unlink()
    message = (
        r"with list_eval_partition.txt and img_align_celeba. Received: .*img_align_celeba only"
    )
    with pytest.raises(ValueError, match=message):
        celeba.load_celeba("train", tmp_path, None)


def test_celeba128_is_cut_out_and_a_twentieth_of_all_images_is_for_the_test(tmp_path):
    pixels = write_celeba(tmp_path / "celeba", "official")
    train, test = load_both(celeba.load_celeba128, tmp_path)
    assert (len(train.images), len(test.images)) == (29, 1)
    found = {image.tobytes() for part in (train, test) for image in np.asarray(part.images)}
    # 50 rows above, 40 below, 25 columns on each side.
    assert found == {face[50:-40, 25:-25].tobytes() for face in pixels.values()}
    # The same size of the usual crop is another entry of the cache.
    usual = celeba.load_celeba("train", tmp_path, 128)
    assert len(usual.images) == 10 and usual.images.shape == (10, 128, 128, 3)


def test_celeba128_has_one_size(tmp_path):
    with pytest.raises(ValueError, match="`image_size` must be 128 for 'celeba128'"):
        celeba.load_celeba128("train", tmp_path, 64)
