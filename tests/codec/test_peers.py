"""PNG, WebP and JPEG XL as codecs to compare with."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp.codec import peers

RNG = np.random.default_rng(6)


def smooth(shape, dtype=np.uint8):
    return (100 + np.cumsum(RNG.integers(-1, 2, shape), axis=0)).astype(dtype)


def test_the_sizes_are_those_of_the_files():
    pictures = [smooth((12, 9, 3)), smooth((12, 9, 3)), smooth((5, 7, 3))]
    found = peers.sizes(pictures)
    assert list(found) == ["PNG", "WebP", "JPEG XL"]
    for name, sizes in found.items():
        alone = [len(peers.encoded(picture[np.newaxis], name)) for picture in pictures]
        np.testing.assert_array_equal(sizes.alone, alone)
        two = len(peers.encoded(np.stack(pictures[:2]), name))
        assert sizes.together == two + alone[2]
        assert (sizes.headers > 0).all() and (sizes.headers < sizes.alone).all()


@pytest.mark.parametrize(
    "channels, dtype", [(1, np.uint8), (3, np.uint8), (1, np.int32), (2, np.int32)]
)
def test_jpeg_xl_is_lossless(channels, dtype):
    images = smooth((1, 12, 9, channels), dtype) * (1 if dtype == np.uint8 else 300)
    decoded = imagecodecs.jpegxl_decode(peers.encoded(images, "JPEG XL"))
    if channels == 3:
        np.testing.assert_array_equal(decoded, images[0])
    else:  # channels side by side
        np.testing.assert_array_equal(
            decoded, np.concatenate(list(images[0].transpose(2, 0, 1)), 1)
        )


def test_the_header_of_a_png_is_all_but_its_pixels():
    picture = smooth((12, 9, 1))
    file = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(file, "PNG", optimize=True)
    header = peers.sizes([picture])["PNG"].headers[0]
    assert header == 8 + 25 + 12 + 12  # signature; IHDR; around IDAT; IEND
    assert len(file.getvalue()) > header


def test_pictures_of_more_than_8_bits_have_no_webp():
    found = peers.sizes([smooth((6, 5, 1), np.int32) * 200])
    assert list(found) == ["PNG", "JPEG XL"]
