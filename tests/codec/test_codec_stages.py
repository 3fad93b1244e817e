"""Chains in the codec: their stages follow each other in a chunk, at the length of their bound."""

import dataclasses
import math

import numpy as np
import pytest
import specimens
from comparisons import one_line

from pixel_cnn_pp import codec, models, sampling, views
from pixel_cnn_pp.codec import coder, container, ideal, identity, stages
from pixel_cnn_pp.config import ChainConfig


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA compiles for seconds. tests/scripts/test_compress.py has it."""
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))


@pytest.fixture(scope="module")
def gray_and_colour():
    return specimens.opinionated("gray_and_colour", "float32")


@pytest.fixture(scope="module")
def three_sizes():
    return specimens.opinionated("three_sizes", "float32")


@pytest.fixture
def two_chunks(gray_and_colour):
    """A file of 2 + 1 images, and the images."""
    images = specimens.images(gray_and_colour.config, 3)
    return codec.compress(gray_and_colour, images, batch_size=2), images


@pytest.mark.parametrize("name", ["gray_and_colour", "three_sizes"])
def test_a_file_is_as_long_as_the_bound_of_the_chain(name):
    model = specimens.opinionated(name, "float32")
    images, condition = specimens.images(model.config, 12, 2), specimens.labels(model.config, 12, 2)
    promised = -np.asarray(model.log_prob(images, condition), np.float64) / math.log(2)
    found = ideal.bits(model, list(images), condition)
    np.testing.assert_allclose(found, promised, rtol=1e-5)  # float32 sums of 96 terms
    data, report = codec.compress_and_report(model, images, condition, batch_size=2)
    # A step costs at most 24 bits where the model is surprised, so a file may be shorter.
    assert (report.bits <= 1.001 * promised).all()
    assert sum(report.chunk_bytes) <= 1.005 * promised.sum() / 8 + 8 * len(images)
    assert sum(report.chunk_bytes) >= report.bits.sum() / 8
    assert len(data) == report.header_bytes + sum(report.chunk_bytes)


def test_images_whose_sides_are_no_multiples_come_back_whole_and_in_tiles(three_sizes):
    # Means of 4 x 4 pixels reach over the lower and the right edge.
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (height, 9, 1), np.uint8) for height in (5, 8, 1)]
    for tile_shape in (None, (4, 12)):
        arguments = (three_sizes, images, None, tile_shape)
        data, report = codec.compress_and_report(*arguments, batch_size=2)
        found = codec.decompress(three_sizes, data)
        for one, other in zip(found, images, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        promised = ideal.bits(three_sizes, images, None, tile_shape, batch_size=2)
        np.testing.assert_allclose(report.bits, promised, rtol=1e-3)
    with one_line(
        "`tile_shape` must be multiples of 4, by which the first picture of this model is smaller. "
        "Received: tile_shape=(4, 6)"
    ):
        codec.compress(three_sizes, images, tile_shape=(4, 6))


def test_the_pictures_of_a_stage_are_those_of_an_image_whose_edges_are_repeated(three_sizes):
    image = np.random.default_rng(3).integers(0, 256, (5, 6, 1))
    levels = np.full((8, 12, 2, 1), -7, np.int32)  # beside the image may be anything
    levels[:5, :6, 0] = image
    found = stages.pictures(three_sizes, levels, (np.array([5, 0]), np.array([6, 0])))
    padded = np.pad(image, [(0, 3), (0, 2), (0, 0)], mode="edge")
    for own, factor in zip(found, (4, 2, 1), strict=True):
        small = views.parse(f"mean:{factor}" if factor > 1 else "image").of(padded[None], 256)[0]
        height, width = -(-5 // factor), -(-6 // factor)
        assert (own.heights.tolist(), own.widths.tolist()) == ([height, 0], [width, 0])
        np.testing.assert_array_equal(own.levels[:height, :width, 0], small[:height, :width])
        assert (own.levels[height:, :, 0] == own.levels[height - 1, :, 0]).all()
        assert (own.levels[:, width:, 0] == own.levels[:, width - 1 : width, 0]).all()


def forged(data, chunk):
    """The file with other bytes in its first chunk, whose digest fits."""
    header, chunks = container.unpack(data)
    table = [(len(chunk), container.bytes_digest(0, chunk), header.chunks[0][2])]
    changed = dataclasses.replace(header, chunks=[*table, *header.chunks[1:]])
    return container.pack(changed, [chunk, *chunks[1:]])


def test_every_flipped_byte_is_refused_and_every_byte_of_a_chunk_although_its_digest_fits(
    gray_and_colour, two_chunks
):
    data, _ = two_chunks
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0x80
        with pytest.raises(ValueError, match="Received") as caught:
            codec.decompress(gray_and_colour, bytes(altered))
        assert "\n" not in str(caught.value)
    _, (chunk, _) = container.unpack(data)
    # The last words belong to the colours, the first ones to the gray pictures of both images.
    for position in range(0, len(chunk), 5):
        altered = bytearray(chunk)
        altered[position] ^= 0x10
        with one_line("The pixels of chunk 0 must be those that were compressed"):
            codec.decompress(gray_and_colour, forged(data, bytes(altered)))


def test_a_stage_that_contradicts_the_image_is_refused_although_the_image_is_right(
    gray_and_colour, monkeypatch
):
    images = specimens.images(gray_and_colour.config, 2)
    pictures = stages.pictures

    def with_another_gray(model, levels, sides):
        gray, colour = pictures(model, levels, sides)
        gray.levels[1, 2, 0] = (gray.levels[1, 2, 0] + 1) % 4
        return [gray, colour]

    monkeypatch.setattr(stages, "pictures", with_another_gray)
    data = codec.compress(gray_and_colour, images, batch_size=2)
    monkeypatch.setattr(stages, "pictures", pictures)
    with one_line("Received: pictures of the stages that contradict each other"):
        codec.decompress(gray_and_colour, data)


def test_a_chunk_that_fails_costs_only_itself(gray_and_colour, two_chunks):
    data, images = two_chunks
    found, reasons = codec.salvage(gray_and_colour, data[:-1] + bytes([data[-1] ^ 1]))
    assert reasons == ["chunk 1 is truncated or altered"] and found[2] is None
    np.testing.assert_array_equal(found[:2], images[:2])
    # Also if only the coder can tell.
    _, (chunk, _) = container.unpack(data)
    found, reasons = codec.salvage(gray_and_colour, forged(data, bytes([chunk[0] ^ 1]) + chunk[1:]))
    assert len(reasons) == 1 and found[:2] == [None, None]
    np.testing.assert_array_equal(found[2], images[2])


def test_the_range_coder_is_shared_and_progress_counts_the_rows_of_all_stages(
    three_sizes, monkeypatch
):
    made = []
    monkeypatch.setattr(coder, "writer", lambda make=coder.writer: made.append(make()) or made[-1])
    steps = []
    images = specimens.images(three_sizes.config, 2)
    codec.compress(three_sizes, images, batch_size=2, progress=lambda *x: steps.append(x))
    assert len(made) == 1
    assert [done for done, _ in steps] == [2, 6, 14] and steps[-1][1] == 14  # 2 + 4 + 8 rows


@pytest.mark.parametrize("number", [0, 1])
def test_another_stage_is_refused(gray_and_colour, two_chunks, number):
    other = specimens.fresh(gray_and_colour.config)
    other.set_weights(gray_and_colour.get_weights())
    weight = other.stages[number].model.weights[0]
    weight.assign(weight + 1)
    with one_line("The file must be decoded with the weights that it was made with"):
        codec.decompress(other, two_chunks[0])


def test_the_options_of_all_stages_and_the_views_name_a_chain_but_no_size_does():
    config = specimens.CHAINS["every_second_pixel"]
    own = identity._options(config)
    assert identity._options(dataclasses.replace(config, views=("mean:2", "image"))) != own
    for number, change in enumerate(({"nr_filters": 7}, {"nr_resnet": 3})):
        changed = list(config.stages)
        changed[number] = dataclasses.replace(changed[number], **change)
        assert identity._options(dataclasses.replace(config, stages=tuple(changed))) != own
    first, last = config.stages
    larger = ChainConfig(
        (
            dataclasses.replace(first, image_shape=(5, 7, 2)),
            dataclasses.replace(last, image_shape=(10, 14, 2), condition_shape=(5, 7, 2)),
        ),
        config.views,
    )
    assert identity._options(larger) == own
    # A picture of another ratio is another condition.
    assert identity._options(dataclasses.replace(last, image_shape=(9, 6, 2))) != own["stages"][1]
    with_sizes = models.make(larger)
    assert identity.of(with_sizes).configuration == identity.of(models.make(config)).configuration


def test_canvases_with_the_multiples_of_all_stages_are_not_too_large(three_sizes):
    flat = [np.zeros((1, 2**23, 1), np.uint8)]
    with one_line("at most 134217728 sub-pixels"):  # 8 x 4 x 2^23 are twice as many
        codec.compress(three_sizes, flat, batch_size=8)
