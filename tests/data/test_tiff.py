"""tiff.py: files that are written by hand or by Pillow are read to the last bit, or refused."""

import handmade
import numpy as np
import pytest
import tifffile
from PIL import Image

from pixel_cnn_pp.data import pictures

RANDOM = np.random.default_rng(0)


def noise(bits, samples, height=5, width=7):
    dtype = np.uint8 if bits <= 8 else np.uint16
    return RANDOM.integers(0, 2**bits, (height, width, samples)).astype(dtype)


def check(encoded, pixels, num_bits, has_alpha=False):
    read, header = pictures.read(encoded)
    np.testing.assert_array_equal(read, pixels[np.newaxis] if pixels.ndim == 3 else pixels)
    assert read.dtype == (np.uint8 if num_bits <= 8 else np.uint16)
    shape, num_pages = pixels.shape[-3:], 1 if pixels.ndim == 3 else len(pixels)
    assert header == pictures.Header(*shape, num_bits, has_alpha, num_pages)
    assert pictures.read_header(encoded) == header


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_every_number_of_bands_is_kept_however_it_lies(samples, bits, order, planar, deflated):
    pixels = noise(bits, samples)
    page = {"pixels": pixels, "planar": planar, "deflated": deflated, "photometric": 1}
    page["extra"] = (0,) * (samples - 1)
    check(handmade.tiff(page, order=order), pixels, bits)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
@pytest.mark.parametrize("samples", [1, 3])
def test_every_number_of_bits_has_its_levels(bits, samples):
    pixels = noise(bits, samples)
    check(handmade.tiff({"pixels": pixels, "num_bits": bits}), pixels, bits)


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_white_is_the_highest_level_also_where_white_is_zero(bits):
    pixels = noise(bits, 1)
    page = {"pixels": 2**bits - 1 - pixels, "num_bits": bits, "photometric": 0}
    check(handmade.tiff(page), pixels, bits)


@pytest.mark.parametrize(("extra", "has_alpha"), [(2, True), (0, False)])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_fourth_band_is_alpha_only_if_the_file_says_so(extra, has_alpha, bits):
    pixels = noise(bits, 4)
    encoded = handmade.tiff({"pixels": pixels, "extra": (extra,)})
    check(encoded, pixels, bits, has_alpha)
    words = f"RGB with alpha of {bits} bits" if has_alpha else f"4 bands of {bits} bits"
    assert str(pictures.read_header(encoded)) == words


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deflated", [False, True])
def test_pixels_stay_where_they_are_stored_whatever_the_orientation(orientation, deflated):
    pixels = noise(8, 3)
    page = {"pixels": pixels, "orientation": orientation, "deflated": deflated}
    check(handmade.tiff(page), pixels, 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_numbers_are_levels_where_none_is_negative(bits):
    pixels = noise(bits - 1, 1).astype(f"i{bits // 8}")
    page = {"pixels": pixels, "sample_format": 2}
    check(handmade.tiff(page), pixels.astype(f"u{bits // 8}"), bits - 1)
    pixels[3, 4, 0] = -1
    with pytest.raises(ValueError, match=r"must be whole numbers .*, not negative as -1"):
        pictures.read(handmade.tiff(page))


@pytest.mark.parametrize(("scale", "bits"), [(257, 8), (256, 8), (1, 16)])
def test_a_palette_becomes_its_colours(scale, bits):
    colours = RANDOM.integers(0, 256 if bits == 8 else 65536, (256, 3))
    indices = noise(8, 1)
    page = {"pixels": indices, "photometric": 3, "colours": colours * scale}
    expected = colours[indices[..., 0]].astype(np.uint8 if bits == 8 else np.uint16)
    check(handmade.tiff(page), expected, bits)


def test_each_page_is_an_image_and_thumbnails_and_masks_are_none():
    pages = noise(16, 3)[..., :1], noise(16, 1), noise(16, 1)
    others = [{"pixels": noise(8, 1, 2, 3), "kind": kind} for kind in (1, 4)]
    encoded = handmade.tiff({"pixels": pages[0]}, *others, *({"pixels": p} for p in pages[1:]))
    check(encoded, np.stack(pages), 16)


@pytest.mark.parametrize("text", ["ImageJ=1.54f\nimages=3\nslices=3\n", '{"shape": [3, 5, 7]}'])
def test_a_stack_whose_images_follow_a_single_page_has_them_all(text):
    # ImageJ writes a stack so that is too large for 32 bits; tifffile where it is told to.
    pages = noise(16, 1, 15)
    if text.startswith("{"):
        text = '{"shape": [3, 5, 7], "truncated": true}'
    page = {"pixels": pages, "rows_per_strip": 15, "text": text}
    encoded = handmade.tiff(page)
    height = encoded.index(b"\x01\x01\x03\0\x01\0\0\0\x0f\0") + 8
    encoded = encoded[:height] + b"\x05" + encoded[height + 1 :]
    counts = encoded.index(b"\x17\x01\x04\0\x01\0\0\0") + 8
    encoded = encoded[:counts] + b"\x46" + encoded[counts + 1 :]  # 5 x 7 x 2 bytes
    check(encoded, pages.reshape(3, 5, 7, 1), 16)


def test_what_pillow_writes_is_read(tmp_path):
    for compression in (None, "tiff_lzw", "tiff_deflate", "packbits"):
        pixels = noise(8, 3, 20, 30)
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
        check((tmp_path / "a.tif").read_bytes(), pixels, 8)
    stack = [Image.fromarray(noise(16, 1)[..., 0]) for _ in range(4)]
    stack[0].save(tmp_path / "stack.tif", save_all=True, append_images=stack[1:])
    check((tmp_path / "stack.tif").read_bytes(), np.stack(stack)[..., np.newaxis], 16)
    grey = Image.fromarray(noise(8, 1, 16, 16)[..., 0])
    grey.save(tmp_path / "jpeg.tif", compression="jpeg")
    read, _ = pictures.read(tmp_path / "jpeg.tif")
    with Image.open(tmp_path / "jpeg.tif") as expected:
        np.testing.assert_array_equal(read[0, ..., 0], np.asarray(expected))


def test_planes_apart_as_tifffile_writes_them_are_no_garbage(tmp_path):
    pixels = RANDOM.integers(0, 65536, (3, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    for _ in range(2):
        check((tmp_path / "a.tif").read_bytes(), np.moveaxis(pixels, 0, -1), 16)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"pixels": np.ones((5, 7, 1), np.float16), "sample_format": 3}, "not float16"),
        ({"pixels": np.ones((5, 7, 1), np.float32), "sample_format": 3}, "not float32"),
        ({"pixels": np.ones((5, 7, 1), np.uint32)}, "not uint32"),
        ({"pixels": noise(8, 4), "photometric": 5}, "not SEPARATED"),
        ({"pixels": noise(8, 3), "photometric": 6}, "not YCBCR"),
        ({"pixels": noise(8, 3), "photometric": 8}, "not CIELAB"),
        ({"pixels": noise(8, 4), "extra": (1,)}, "not multiplied by alpha"),
    ],
)
def test_pixels_that_are_no_levels_are_refused(page, message):
    for read in (pictures.read, pictures.read_header):
        with pytest.raises(ValueError, match=rf"of at most 16 bits, grey, RGB or bands, {message}"):
            read(handmade.tiff(page))


def test_pages_of_several_kinds_are_refused_by_name():
    encoded = handmade.tiff({"pixels": noise(8, 3)}, {"pixels": noise(8, 1, 9)})
    message = "of one size and kind, not 5 x 7 RGB of 8 bits, 9 x 7 grey of 8 bits"
    with pytest.raises(ValueError, match=message):
        pictures.read_header(encoded)


def test_a_file_that_is_cut_or_damaged_anywhere_is_one_line_or_whole():
    pixels = noise(8, 3, 12, 9)
    for deflated in (False, True):
        encoded = handmade.tiff({"pixels": pixels, "deflated": deflated})
        for size in range(0, len(encoded), 13):
            with pytest.raises(ValueError) as caught:
                pictures.read(encoded[:size])
            assert "\n" not in str(caught.value)
    for place in range(8, len(encoded)):  # Deflated, so that a sum guards the pixels.
        damaged = encoded[:place] + bytes([encoded[place] ^ 0x11]) + encoded[place + 1 :]
        try:
            pictures.read(damaged)
        except ValueError as error:
            assert "\n" not in str(error)


def test_a_part_that_is_missing_is_not_filled_up():
    encoded = bytearray(handmade.tiff({"pixels": noise(8, 1, 6, 7)}))
    counts = encoded.index(b"\x17\x01\x04\0\x02\0\0\0") + 8
    place = int.from_bytes(encoded[counts : counts + 4], "little")
    encoded[place : place + 4] = b"\0" * 4
    with pytest.raises(ValueError, match="image file is truncated"):
        pictures.read(bytes(encoded))
