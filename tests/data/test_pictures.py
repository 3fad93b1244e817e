"""pictures.py: every bit of a file arrives, and a broken one says why."""

import handmade
import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp.data import pictures

RANDOM = np.random.default_rng(0)
GREY_8 = RANDOM.integers(0, 256, (5, 7, 1), np.uint8)
RGB_8 = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)
RGBA_8 = RANDOM.integers(0, 256, (5, 7, 4), np.uint8)
# Every value of 16 bits that a byte more or less would spoil is in here.
GREY_16 = np.append(RANDOM.integers(0, 65536, 32), [0, 255, 65535]).astype(np.uint16)
GREY_16 = GREY_16.reshape(5, 7, 1)


def check(path, pixels, num_bits, has_alpha=False):
    """The file is read exactly, from its path and from its bytes, and its header says the same."""
    for file in (path, str(path), path.read_bytes()):
        read, header = pictures.read(file)
        np.testing.assert_array_equal(read, pixels[np.newaxis])
        assert read.dtype == (np.uint8 if num_bits <= 8 else np.uint16)
        assert header == pictures.Header(*pixels.shape, num_bits, has_alpha)
        assert pictures.read_header(file) == header


@pytest.mark.parametrize("ending", ["png", "tif", "tiff"])
@pytest.mark.parametrize(
    "pixels", [GREY_8, RGB_8, RGBA_8, GREY_16], ids=["grey", "RGB", "RGBA", "grey 16"]
)
def test_png_and_tiff_are_read_exactly(ending, pixels, tmp_path):
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    check(path, pixels, 8 * pixels.itemsize, pixels.shape[-1] == 4)


@pytest.mark.parametrize("pixels", [RGB_8, RGBA_8], ids=["RGB", "RGBA"])
def test_webp_is_read_exactly(pixels, tmp_path):
    path = tmp_path / "picture.webp"
    Image.fromarray(pixels).save(path, lossless=True, exact=True)
    check(path, pixels, 8, pixels.shape[-1] == 4)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_makes_of_it(mode, tmp_path):
    path = tmp_path / "picture.JPG"
    Image.fromarray(RGB_8).convert(mode).save(path, "JPEG")
    expected = np.asarray(Image.open(path)).reshape(5, 7, -1)
    check(path, expected, 8)


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_png_of_16_bits_keeps_them_in_every_colour_type(channels, colour_type, tmp_path):
    pixels = RANDOM.integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(handmade.png(pixels, 16, colour_type))
    check(path, pixels, 16, channels in (2, 4))


@pytest.mark.parametrize(("num_bits", "channels"), [(16, 1), (16, 3), (8, 1), (8, 3), (1, 1)])
def test_a_colour_that_stands_for_what_is_clear_becomes_alpha(num_bits, channels, tmp_path):
    pixels = RANDOM.integers(0, 2**num_bits, (5, 7, channels))
    pixels = pixels.astype(np.uint16 if num_bits > 8 else np.uint8)
    key, path = pixels[1, 2], tmp_path / "key.png"
    path.write_bytes(handmade.png(pixels, num_bits, 0 if channels == 1 else 2, key))
    clear = (pixels == key).all(axis=-1, keepdims=True)
    check(path, np.concatenate([pixels, ~clear * (2**num_bits - 1)], axis=-1), num_bits, True)


@pytest.mark.parametrize("num_bits", [1, 2, 4])
def test_png_of_few_bits_has_the_levels_of_its_bits(num_bits, tmp_path):
    pixels = RANDOM.integers(0, 2**num_bits, (5, 7, 1)).astype(np.uint8)
    path = tmp_path / "few.png"
    path.write_bytes(handmade.png(pixels, num_bits, 0))
    check(path, pixels, num_bits)


def test_a_palette_becomes_its_colours(tmp_path):
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[1, 2] = [255, 0, 10]
    picture = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "opaque.png")
    check(tmp_path / "opaque.png", pixels, 8)
    picture.save(tmp_path / "clear.png", transparency=picture.getpixel((2, 1)))
    read, header = pictures.read(tmp_path / "clear.png")
    np.testing.assert_array_equal(read[0, ..., :3], pixels)
    assert (read[0, 1, 2, 3], read[0, 0, 0, 3], header.has_alpha) == (0, 255, True)


def test_opaque_alpha_can_be_dropped_and_no_other():
    for pixels, num_bits in ((RGBA_8, 8), (RGBA_8.astype(np.uint16) * 257, 16)):
        header = pictures.Header(*pixels.shape, num_bits, True)
        assert pictures.without_opaque_alpha(pixels, header) is pixels
        opaque = pixels.copy()
        opaque[..., 3] = 2**num_bits - 1
        np.testing.assert_array_equal(
            pictures.without_opaque_alpha(opaque, header), pixels[..., :3]
        )
    white = np.full((5, 7, 3), 255, np.uint8)
    assert pictures.without_opaque_alpha(white, pictures.Header(5, 7, 3, 8)) is white


@pytest.mark.parametrize(
    ("mode", "ending"), [("CMYK", "jpg"), ("F", "tif"), ("I", "tif"), ("LAB", "tif")]
)
def test_kinds_of_pixels_that_are_no_levels_are_refused(mode, ending, tmp_path):
    path = tmp_path / f"picture.{ending}"
    Image.new(mode, (7, 5)).save(path)
    with pytest.raises(ValueError, match="of at most 16 bits, grey, RGB or bands, not "):
        pictures.read(path)


def test_a_file_that_is_no_picture_says_so_without_its_own_name(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("hello")
    for read in (pictures.read, pictures.read_header):
        with pytest.raises(ValueError, match=r"^cannot identify image file$"):
            read(path)
    assert pictures.try_header(path) == "cannot identify image file"
    assert pictures.try_header(tmp_path / "none.png") == "No such file or directory"
    with pytest.raises(FileNotFoundError):
        pictures.read(tmp_path / "none.png")


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "webp", "tif", "16.png", "16.tif", "gif", "bmp", "ppm", "jp2", "avif"]
)
def test_a_file_that_was_cut_short_is_refused(ending, tmp_path):
    path = tmp_path / f"picture.{ending}"
    if ending.startswith("16"):
        pixels = RANDOM.integers(0, 65536, (40, 40, 3)).astype(np.uint16)
        is_png = ending.endswith("png")
        path.write_bytes(
            handmade.png(pixels, 16, 2) if is_png else handmade.tiff({"pixels": pixels})
        )
    else:
        Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    pictures.read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError) as caught:
        pictures.read(path)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_decoder_gives_what_was_converted_or_the_reason(tmp_path):
    decode = pictures.decoder(lambda name, pixels, header: (name, pixels.sum(), header.num_bits))
    Image.fromarray(RGB_8).save(tmp_path / "right.png")
    assert decode("first", tmp_path / "right.png") == [("first", RGB_8.sum(), 8)]
    assert decode("second", b"") == "cannot identify image file"
    assert decode("third", tmp_path / "none.png") == "No such file or directory"
