"""Every row of the table of formats: a file that another library wrote is read to the last bit."""

import io
import os
import pathlib
import re
import struct
import sys

import array_formats
import handmade
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp import data
from pixel_cnn_pp.data import pictures

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text()
RANDOM = np.random.default_rng(0)


def noise(bits, channels, height=12, width=20):
    dtype = np.uint8 if bits <= 8 else np.uint16
    return RANDOM.integers(0, 2**bits, (height, width, channels)).astype(dtype)


def gif():
    """A GIF of 4 colours by hand; its codes are cleared so often that all have 3 bits."""
    colours, indices = noise(8, 3)[0, :4], RANDOM.integers(0, 4, (12, 20))
    start = b"GIF89a" + struct.pack("<HHBBB", 20, 12, 0x81, 0, 0) + colours.tobytes()
    start += b"," + struct.pack("<HHHHBB", 0, 0, 20, 12, 0, 2)
    codes = [code for index in indices.reshape(-1) for code in (4, index)] + [5]
    bits = (np.array(codes)[:, None] >> np.arange(3)) & 1
    data = np.packbits(bits.reshape(-1).astype(np.uint8), bitorder="little").tobytes()
    blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    return start + body + b"\0;", colours[indices], 8


def webp(channels):
    pixels = noise(8, channels)
    pixels[..., 3:] |= 1  # The colour of what is quite clear may be lost.
    return imagecodecs.webp_encode(pixels, lossless=True), pixels, 8


def by_pillow(pixels, format_, **options):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(file, format_, **options)
    return file.getvalue(), pixels, 8 * pixels.itemsize


def jpeg(channels):
    encoded = imagecodecs.jpeg8_encode(np.squeeze(noise(8, channels)), level=95)
    return encoded, imagecodecs.jpeg8_decode(encoded).reshape(12, 20, channels), 8


def bmp(channels):
    pixels = noise(8, channels)
    return imagecodecs.bmp_encode(np.squeeze(pixels)), pixels, 8


def encoded_by(encode, bits, channels, **options):
    pixels = noise(bits, channels)
    return encode(np.squeeze(pixels), **options), pixels, bits


def by_hand(encode, bits, channels, *more):
    pixels = noise(bits, channels)
    return encode(pixels, *more), pixels, bits


# (format of the table, the library that writes) -> function that gives the bytes of a file, the
# pixels [H, W, C] that must be read, and their bits.
CASES = {
    ("PNG", "imagecodecs", c): lambda c=c: encoded_by(imagecodecs.png_encode, 8, c)
    for c in (1, 2, 3, 4)
}
CASES |= {
    ("PNG", "this project", f"{b} bits"): lambda b=b: by_hand(handmade.png, b, 1, b, 0)
    for b in (1, 2, 4)
}
CASES |= {
    ("PNG of 16 bits", "this project", c): lambda c=c, t=t: by_hand(handmade.png, 16, c, 16, t)
    for c, t in ((1, 0), (2, 4), (3, 2), (4, 6))
}
CASES |= {("JPEG", "imagecodecs", c): lambda c=c: jpeg(c) for c in (1, 3)}
CASES |= {("WebP", "imagecodecs", c): lambda c=c: webp(c) for c in (3, 4)}
CASES[("GIF", "imagecodecs", 1)] = lambda: encoded_by(imagecodecs.gif_encode, 8, 1)
CASES[("GIF", "this project", 3)] = gif
CASES |= {("BMP", "imagecodecs", c): lambda c=c: bmp(c) for c in (1, 3)}
CASES[("PBM", "this project", 1)] = lambda: by_hand(handmade.pbm, 1, 1)
CASES |= {
    ("PGM, PPM", writer, f"{c} channels, {b} bits"): lambda w=w, b=b, c=c: by_hand(
        w, b, c, 2**b - 1
    )
    for writer, w in (("bytes", handmade.netpbm), ("text", handmade.netpbm_text))
    for b in (3, 8, 12, 16)
    for c in (1, 3)
}
CASES |= {
    ("JPEG 2000", "imagecodecs", f"{c} channels, {b} bits"): lambda b=b, c=c: encoded_by(
        imagecodecs.jpeg2k_encode, b, c, reversible=True, bitspersample=b, level=0
    )
    for b in (4, 8, 12, 16)
    for c in (1, 3)
}
CASES[("JPEG 2000", "Pillow", "16 bits")] = lambda: by_pillow(
    noise(16, 1), "JPEG2000", irreversible=False
)
CASES |= {
    ("AVIF", "imagecodecs", f"{c} channels, {b} bits"): lambda b=b, c=c: encoded_by(
        imagecodecs.avif_encode, b, c, level=100, bitspersample=b
    )
    for b in (8, 10, 12)
    for c in (3, 4)
}
CASES |= {
    ("TIFF", "this project", f"{c} bands, {b} bits"): lambda b=b, c=c: by_hand(
        lambda pixels: handmade.tiff({"pixels": pixels, "num_bits": b}), b, c
    )
    for b in (1, 8, 12, 16)
    for c in (1, 3)
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_a_picture_of_another_library_is_read_to_the_last_bit(case):
    encoded, pixels, bits = CASES[case]()
    read, header = pictures.read(encoded)
    np.testing.assert_array_equal(read[0], pixels)
    assert (header.num_bits, header.num_channels) == (bits, pixels.shape[-1])
    assert header.has_alpha == (pixels.shape[-1] in (2, 4) and case[0] != "TIFF")
    assert pictures.read_header(encoded) == header


def table():
    lines = PAGE[PAGE.index("### Formats") :].split("## ")[1].splitlines()
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in lines if line.startswith("| ")]
    return {name: library for name, _, library, *_ in rows[1:]}


def test_every_row_of_the_table_has_a_file_of_another_library():
    written = {}
    for name, writer, *_ in [*CASES, *array_formats.ARRAYS]:
        written.setdefault(name, set()).add(writer)
    assert table().keys() == written.keys()
    for name, library in table().items():
        assert written[name] - {library} or library == "this project", name


@pytest.mark.parametrize("case", array_formats.ARRAYS, ids=" ".join)
def test_a_file_of_another_library_is_loaded_with_its_labels(case, tmp_path):
    end, write, has_labels = array_formats.ARRAYS[case]
    write(tmp_path / f"set{end}")
    lines = []
    parts = [
        data.load(f"file:{tmp_path / f'set{end}'}", split, tmp_path / "data", log=lines.append)
        for split in ("train", "test")
    ]
    channels = parts[0].images.shape[-1]
    number_of = {
        np.ascontiguousarray(image[..., :channels]).tobytes(): label
        for image, label in zip(array_formats.IMAGES, array_formats.LABELS, strict=True)
    }
    found = {
        image.tobytes(): None if part.labels is None else part.labels[row]
        for part in parts
        for row, image in enumerate(part.images)
    }
    assert found == (number_of if has_labels else dict.fromkeys(number_of))
    if case[0].startswith("IDX"):
        assert [len(part.images) for part in parts] == [24, 6]
    if case[0].startswith("MAT"):
        assert parts[0].class_names == ("1", "2", "3")
    if case[0].endswith("webdataset"):
        assert "passed over: .json (30)" in lines[0]


@pytest.mark.parametrize("case", array_formats.ARRAYS, ids=" ".join)
def test_a_file_that_is_cut_or_damaged_is_one_line_or_whole(case, tmp_path):
    end, write, _ = array_formats.ARRAYS[case]
    path = tmp_path / f"set{end}"
    write(path)
    if path.is_dir():
        path = next(path.glob("train-images*"))
    whole = path.read_bytes()
    name = f"file:{tmp_path / f'set{end}'}"
    damages = [whole[: len(whole) * part // 7] for part in range(7)]
    damages += [whole[:p] + bytes([whole[p] ^ 0xFF]) + whole[p + 1 :] for p in range(0, 200, 19)]
    damages += [whole[:p] + bytes([whole[p] ^ 0xFF]) + whole[p + 1 :] for p in range(-200, -1, 19)]
    for number, damaged in enumerate(damages):
        path.write_bytes(damaged)
        os.utime(path, ns=(number, number))
        try:
            data.load(name, "train", tmp_path / "data", log=lambda line: None)
        except (ValueError, OSError) as error:
            assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("module", "extra", "row"),
    [("h5py", "hdf5", "HDF5"), ("scipy", "mat", "MAT"), ("pyarrow", "parquet", "parquet")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    module, extra, row, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    ((end, write, _),) = (value for key, value in array_formats.ARRAYS.items() if key[0] == row)
    write(tmp_path / f"set{end}")
    with pytest.raises(
        ValueError, match=rf"^{module} must be .*pip install 'pixel_cnn_pp\[{extra}\]'"
    ):
        data.load(f"file:{tmp_path}/set{end}", "train", tmp_path / "data")
