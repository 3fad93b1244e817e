"""compress and decompress: what comes back, what is refused, and how long a file is."""

import concurrent.futures
import dataclasses
import hashlib
import json
import math
import zlib

import numpy as np
import pytest
import specimens
from comparisons import one_line

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import codec, sampling
from pixel_cnn_pp.codec import coder, container, ideal, identity, walk
from pixel_cnn_pp.config import ModelConfig, PixelCNNConfig

# The smallest networks that have all that the codec asks of one: classes, and channels that are
# read.
WITH_CLASSES = ModelConfig(
    (4, 8, 2), num_levels=17, nr_filters=4, nr_logistic_mix=2, num_classes=3, dropout_p=0.0,
    receptive_field="11x5",
)  # fmt: skip
OF_ANY_SIDES = PixelCNNConfig(
    (3, 4, 2), num_levels=5, nr_resnet=1, nr_filters=6, nr_output_filters=8
)


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA compiles for seconds. tests/scripts/test_compress.py has it."""
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))


@pytest.fixture(scope="module")
def model():
    """A model with classes, whose likelihood is far from uniform."""
    model = specimens.fresh(WITH_CLASSES)
    model.initialize(specimens.images(WITH_CLASSES, 8), specimens.labels(WITH_CLASSES, 8))
    return model


@pytest.fixture(scope="module")
def free_model():
    return specimens.fresh(OF_ANY_SIDES)


@pytest.fixture(scope="module")
def free_file(free_model):
    """A small file of three chunks, and its images."""
    images = specimens.images(OF_ANY_SIDES, 5)
    compile_function = sampling.draw.compile_function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))
        return codec.compress(free_model, images, batch_size=2), images


@pytest.fixture(scope="module")
def small_file(free_model):
    """A file of one chunk, whose digest is that of the header too; and its images."""
    images = specimens.images(OF_ANY_SIDES, 2)
    with pytest.MonkeyPatch.context() as patch:
        compile_function = sampling.draw.compile_function
        patch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))
        return codec.compress(free_model, images, batch_size=2), images


def levels_of(config, shape, seed=0):
    return np.random.default_rng(seed).integers(0, config.num_levels, shape).astype(np.uint8)


@pytest.mark.parametrize("num_images", [1, 2, 65])
def test_batches_come_back(model, num_images):
    images = specimens.images(WITH_CLASSES, num_images)
    labels = specimens.labels(WITH_CLASSES, num_images)
    batch_size = min(num_images, 64)
    data = pcnn.compress(model, images, labels, batch_size=batch_size)
    found = pcnn.decompress(model, data)
    np.testing.assert_array_equal(found, images, strict=True)


@pytest.mark.parametrize("image", ["noise", "black", "white"])
@pytest.mark.parametrize("sides", [(1, 1), (5, 3), (4, 12)])
def test_noise_and_constant_pictures_of_other_sides_come_back(model, image, sides):
    shape = (2, *sides, 2)
    images = levels_of(WITH_CLASSES, shape)
    if image != "noise":
        images[...] = 0 if image == "black" else 16
    found = codec.decompress(model, codec.compress(model, images, [2, 0], batch_size=2))
    np.testing.assert_array_equal(found, images, strict=True)


@pytest.mark.parametrize("num_levels", [2, 256, 4096, 65536])
def test_pictures_of_few_and_of_many_levels_come_back(num_levels):
    config = ModelConfig(
        (4, 4, 1), num_levels=num_levels, nr_filters=4, nr_logistic_mix=2, dropout_p=0.0,
        receptive_field="11x5",
    )  # fmt: skip
    model = specimens.fresh(config)
    images = specimens.images(config, 3)
    images[0], images[1, 0, 0, 0] = num_levels - 1, 0
    model.initialize(images)
    data, report = codec.compress_and_report(model, images, batch_size=3)
    np.testing.assert_array_equal(codec.decompress(model, data), images, strict=True)
    promised = ideal.bits(model, list(images))
    np.testing.assert_allclose(report.bits, promised, rtol=2e-3)


def test_pictures_of_many_sizes_come_back_whole_and_in_tiles(model, free_model):
    for own, labels in ((model, [0, 1, 2]), (free_model, None)):
        config = own.config
        pictures = [
            levels_of(config, (*sides, 2), i) for i, sides in enumerate([(3, 9), (9, 3), (4, 4)])
        ]
        for tile_shape in (None, (4, 4)):
            data = codec.compress(own, pictures, labels, tile_shape=tile_shape, batch_size=2)
            found = codec.decompress(own, data)
            assert len(found) == 3
            for one, other in zip(found, pictures, strict=True):
                np.testing.assert_array_equal(one, other, strict=True)


def test_a_file_is_as_long_as_the_likelihood_and_its_header(model):
    images, labels = specimens.images(WITH_CLASSES, 33), specimens.labels(WITH_CLASSES, 33)
    data, report = codec.compress_and_report(model, images, labels, batch_size=16)
    promised = -np.asarray(model.log_prob(images, labels), np.float64) / math.log(2)
    # float32 roundings of a network, which add up over 64 sub-pixels.
    np.testing.assert_allclose(report.bits, promised, rtol=1e-4)
    np.testing.assert_allclose(ideal.bits(model, list(images), labels), promised, rtol=1e-5)
    assert len(report.chunk_bytes) == 3  # 16 + 16 + 1
    assert len(data) == report.header_bytes + sum(report.chunk_bytes)
    assert promised.sum() / 8 <= sum(report.chunk_bytes) <= promised.sum() / 8 * 1.0001 + 3 * 8
    for index in (0, 32):
        alone = codec.compress(
            model, images[index : index + 1], labels[index : index + 1], batch_size=16
        )
        assert abs(len(alone) - report.alone_bytes[index]) <= 4


def test_what_is_outside_of_a_tile_costs_nothing(free_model):
    image = levels_of(OF_ANY_SIDES, (3, 5, 2))
    wide = [levels_of(OF_ANY_SIDES, (3, 8, 2)), image]
    whole = codec.compress_and_report(free_model, wide, tile_shape=(3, 8), batch_size=2)[1].bits
    alone = codec.compress_and_report(free_model, [image], batch_size=2)[1].bits
    # Only what the last columns see above and to the right of them differs.
    assert abs(whole[1] / alone[0] - 1) < 0.05
    np.testing.assert_allclose(ideal.bits(free_model, wide, tile_shape=(3, 8)), whole, rtol=1e-4)


def test_verify_decodes_and_says_what_differs(free_model, monkeypatch):
    images = specimens.images(OF_ANY_SIDES, 2)
    steps = []
    codec.compress(
        free_model, images, batch_size=2, verify=True, progress=lambda *x: steps.append(x)
    )
    assert steps[-1] == (6, 6)  # 3 rows there and 3 back
    decode = coder.Decoder._code

    def wrong(self, table, parts):
        return decode(self, table, parts)[::-1].copy()

    monkeypatch.setattr(coder.Decoder, "_code", wrong)
    with one_line("The pixels of chunk 0 must be those that were compressed"):
        codec.compress(free_model, images, batch_size=2, verify=True)


def test_encoder_and_decoder_run_the_same_compiled_function(free_model, free_file):
    assert len(walk._COMPILED[free_model]) == 1


@pytest.mark.parametrize("file", ["free_file", "small_file"])
def test_every_flipped_byte_is_refused_before_a_pixel_is_decoded(
    free_model, file, monkeypatch, request
):
    data, images = request.getfixturevalue(file)
    np.testing.assert_array_equal(codec.decompress(free_model, data), images)
    monkeypatch.setattr(walk, "walk", lambda *_: pytest.fail("it was decoded"))
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            altered = bytearray(data)
            altered[position] ^= flip
            with pytest.raises(ValueError, match="Received") as caught:
                codec.decompress(free_model, bytes(altered))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["free_file", "small_file"])
def test_every_truncation_and_anything_behind_the_end_is_refused(free_model, file, request):
    data, _ = request.getfixturevalue(file)
    for end in range(len(data)):
        with pytest.raises(ValueError, match="Received"):
            codec.decompress(free_model, data[:end])
    with one_line("a longer or altered file"):
        codec.decompress(free_model, data + b"\0")


def test_a_damaged_file_of_one_chunk_has_nothing_to_salvage(free_model, small_file):
    data, images = small_file
    np.testing.assert_array_equal(codec.salvage(free_model, data)[0], images)
    with one_line("a truncated or altered file"):
        codec.salvage(free_model, data[:-1])
    with one_line("The file must be as it was written. Received: an altered file"):
        codec.salvage(free_model, data[:-1] + bytes([data[-1] ^ 1]))


def test_swapped_chunks_are_refused_also_with_a_header_that_fits(free_model, free_file):
    data, _ = free_file
    header, chunks = container.unpack(data)
    start = len(data) - sum(map(len, chunks))
    with one_line("chunk 0 is truncated or altered"):
        container.unpack(data[:start] + b"".join([chunks[1], chunks[0], chunks[2]]))
    # The numbers of the chunks are in their digests.
    table = [header.chunks[1], header.chunks[0], header.chunks[2]]
    swapped = dataclasses.replace(header, chunks=table)
    with one_line("chunk 0 is truncated or altered"):
        container.unpack(container.pack(swapped, [chunks[1], chunks[0], chunks[2]]))


def test_pixels_that_differ_are_never_returned(free_model, free_file):
    data, _ = free_file
    header, chunks = container.unpack(data)
    for number in range(len(chunks)):
        changed = [*chunks]
        changed[number] = bytes([chunks[number][0] ^ 0x40]) + chunks[number][1:]
        # A forged header, whose digest of the bytes fits.
        table = [*header.chunks]
        table[number] = (
            len(changed[number]), container.bytes_digest(number, changed[number]), table[number][2]
        )  # fmt: skip
        forged = container.pack(dataclasses.replace(header, chunks=table), changed)
        with one_line(f"The pixels of chunk {number} must be those that were compressed"):
            codec.decompress(free_model, forged)


def test_a_chunk_that_fails_costs_only_itself(free_model, free_file):
    data, images = free_file
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1])):
        pictures, reasons = codec.salvage(free_model, damaged)
        assert reasons == ["chunk 2 is truncated or altered"]
        assert pictures[4] is None
        np.testing.assert_array_equal(pictures[:4], images[:4])
    pictures, reasons = codec.salvage(free_model, data)
    assert not reasons
    np.testing.assert_array_equal(pictures, images)


def forge(data, **changes):
    """The file with another header, whose digest fits."""
    header, chunks = container.unpack(data)
    return container.pack(dataclasses.replace(header, **changes), chunks)


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes": [(3, 4, 2**31 - 1)]},
        {"shapes": [(2**31 - 1, 2**31 - 1, 5)]},
        {"shapes": [(2**31 - 1, 2**31 - 1, 5)], "batch_size": 1024},
        {"shapes": [(3, 4, 5), (2**31 - 1, 1, 1)], "is_array": False},
        {"shapes": [(3, 0, 5)]},
        {"shapes": []},
        {"shapes": [(3, 4, 4)]},
        {"shapes": [(60, 4000, 5)]},
        {"tile_shape": (1, 1)},
        {"tile_shape": (2**31 - 1, 0)},
        {"tile_shape": (2**31 - 1, 2**31 - 1), "shapes": [(2**31 - 1, 2**31 - 1, 5)]},
        {"batch_size": 2**16 - 1},
        {"identity": dataclasses.replace(identity.Identity(*["00" * 8] * 8), model="x" * 10**6)},
        {"batch_size": 0},
        {"num_channels": 2**16 - 1},
        {"num_channels": 0},
        {"num_levels": 2**32 - 1},
        {"num_levels": 6},
        {"num_channels": 3},
        {"labels": (0,) * 4},
        {"labels": (0,) * 5},
        {"condition": b"123456"},
    ],
)
def test_a_forged_header_is_refused_at_once(free_model, free_file, changes, monkeypatch):
    monkeypatch.setattr(walk, "walk", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="Received") as caught:
        codec.decompress(free_model, forge(free_file[0], **changes))
    assert "\n" not in str(caught.value)


def with_header(header):
    """A file of several chunks that has only a header, whose digest fits."""
    return header + container._digest(0, 4, [header])


def test_a_header_that_is_cut_or_changed_at_any_place_is_refused(free_file):
    data, _ = free_file
    chunks = container.unpack(data)[1]
    whole = data[: len(data) - sum(map(len, chunks)) - 4]
    assert data.startswith(with_header(whole))
    with one_line("a truncated or altered file"):  # its chunks are missing
        container.unpack(with_header(whole))
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="Received: "):
            container.unpack(with_header(whole[:size]))
    for position in range(len(whole)):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[position] = value
            with pytest.raises(ValueError, match="Received: "):
                container.unpack(with_header(bytes(changed)))


def blake2b(size, *parts):
    """The first bytes of a file's digests, as docs/compression.md says them."""
    return hashlib.blake2b(b"".join(parts), digest_size=size).digest()


def test_the_bytes_of_a_file_are_those_of_the_documentation(model):
    images, labels = specimens.images(WITH_CLASSES, 3), [2, 0, 1]
    data, report = codec.compress_and_report(model, images, labels, batch_size=2)
    options = {
        "kind": "pixel_cnn_pp", "channels": 2, "num_levels": 17, "nr_filters": 4,
        "nr_logistic_mix": 2, "num_classes": 3, "dropout_p": 0.0, "receptive_field": "11x5",
    }  # fmt: skip
    options = json.dumps(options, sort_keys=True).encode()
    weights = [
        part
        for array in model.get_weights()
        for part in (repr((array.shape, array.dtype.name)).encode(), array.tobytes())
    ]
    own = identity.of(model)
    texts = [own.dtype, own.backend, own.executor, own.coder, own.device, own.model]
    size_of_texts = data[6]
    inflated = zlib.decompressobj(wbits=-15, zdict=container._USUAL_TEXTS)
    assert inflated.decompress(data[7 : 7 + size_of_texts]) == "\n".join(texts).encode()
    sizes = report.chunk_bytes
    assert len(sizes) == 2 and all(size % 4 == 0 and size < 4 * 128 for size in sizes)
    chunks = data[-sum(sizes) : -sizes[1]], data[-sizes[1] :]
    pixels = images[:2].tobytes(), images[2:].tobytes()
    numbers = [(0).to_bytes(4, "little"), (1).to_bytes(4, "little")]
    header = b"".join(
        [
            b"\x89PCN", bytes([4, 0b10011]), data[6 : 7 + size_of_texts],
            blake2b(2, options), blake2b(4, options, *weights),
            bytes([2, 17, 2, 4, 8, 3]), bytes(labels),
            bytes([sizes[0] // 4]), blake2b(4, numbers[0], chunks[0]),
            blake2b(6, numbers[0], pixels[0]),
            bytes([sizes[1] // 4]), blake2b(4, numbers[1], chunks[1]),
            blake2b(6, numbers[1], pixels[1]),
        ]
    )  # fmt: skip
    assert data == header + blake2b(4, numbers[0], header) + chunks[0] + chunks[1]
    # One chunk has no digest of its own. Pictures that fit into a tile need no tiles.
    image = levels_of(WITH_CLASSES, (3, 5, 2))
    data, report = codec.compress_and_report(model, [image], [1], tile_shape=(4, 8), batch_size=2)
    (size,) = report.chunk_bytes
    header = b"".join(
        [
            header[:5], bytes([0b10010]), header[6 : 7 + size_of_texts + 6],
            bytes([2, 17, 2, 3, 5, 1, 1, size // 4]), blake2b(6, numbers[0], image.tobytes()),
        ]
    )  # fmt: skip
    assert data == header + blake2b(4, numbers[0], header, data[-size:]) + data[-size:]
    assert report.alone_bytes[0] - len(data) in (0, -4)
    assert report.alone_header_bytes[0] == len(data) - size


def test_the_header_of_a_file_of_one_photograph_has_36_bytes():
    own = identity.Identity(
        model="PixelCNN++", configuration="0123", weights="01234567", dtype="float32",
        backend="tensorflow 2.21.0, keras 3.12.4", executor="XLA",
        device="cpu x86_64 fma avx2 avx512f avx512_bf16 2 threads",
        coder="constriction 0.5.0 range coder of 24 bits, perfect=False",
    )  # fmt: skip
    chunks = [(1200, b"1234", b"123456")]
    header = container.Header(own, 3, 256, False, 1, None, [(32, 32, 1)], None, b"", chunks)
    assert len(container.pack(header, [])) == 36
    other = dataclasses.replace(header, identity=dataclasses.replace(own, model="Another model"))
    assert len(container.pack(other, [])) < 36 + len("Another model")


def test_numbers_of_a_header_have_at_most_32_bits():
    for number in (0, 1, 127, 128, 300, 2**32 - 1):
        assert container._Reader(container._varint(number)).number() == number
    for encoded in (container._varint(2**32), b"\xff" * 5, b"\xff" * 9 + b"\1"):
        with pytest.raises(ValueError, match="more than 32 bits"):
            container._Reader(encoded).number()


def test_a_chunk_that_hardly_costs_anything_is_padded(free_file):
    assert container.padded(b"1234", 1000) == b"1234"
    padded = container.padded(b"1234", 1_000_000)
    assert padded.startswith(b"1234\0") and len(padded) % 4 == 0
    assert container.MAX_RATE * (len(padded) + 8) >= 1_000_000
    header, chunks = container.unpack(free_file[0])
    huge = dataclasses.replace(header, shapes=[(3000, 100, 5)])
    with one_line("a chunk is too short for its pictures"):
        container.unpack(container.pack(huge, chunks))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(identity.Identity)])
def test_what_was_made_with_something_else_is_refused_by_its_name(free_model, free_file, field):
    header, _ = container.unpack(free_file[0])
    own = getattr(header.identity, field)
    value = "0123456789"[: len(own)]  # as long as a digest is
    other = dataclasses.replace(header.identity, **{field: value})
    with one_line(
        f"The file must be decoded with the {field} that it was made with, {value}. "
        f"Received: {field} {own}"
    ):
        codec.decompress(free_model, forge(free_file[0], identity=other))


def test_another_model_is_refused(free_model, free_file):
    other = specimens.fresh(OF_ANY_SIDES)
    other.weights[0].assign(other.weights[0] + 1)
    with one_line("The file must be decoded with the weights that it was made with"):
        codec.decompress(other, free_file[0])
    more = specimens.fresh(dataclasses.replace(OF_ANY_SIDES, nr_resnet=2))
    with one_line("The file must be decoded with the configuration that it was made with"):
        codec.decompress(more, free_file[0])
    # The size that the configuration has is that of the training, and no matter here.
    same = specimens.fresh(dataclasses.replace(OF_ANY_SIDES, image_shape=(6, 6, 2)))
    same.set_weights(free_model.get_weights())
    np.testing.assert_array_equal(codec.decompress(same, free_file[0]), free_file[1])


def test_the_options_that_have_their_defaults_do_not_name_a_model():
    options = identity._options(PixelCNNConfig((3, 4, 2)))
    assert options == {"kind": "pixel_cnn", "channels": 2}


def test_a_model_without_a_likelihood_is_one_line():
    model = specimens.build("energy")
    images, labels = specimens.images(model.config, 1), specimens.labels(model.config, 1)
    with one_line("A model that is trained by the energy distance has no likelihood."):
        codec.compress(model, images, labels)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": np.zeros((2, 3, 4, 1), np.uint8)}, "images must have the shape"),
        ({"images": np.full((1, 3, 4, 2), 5)}, r"whole numbers in \[0, 4\]"),
        ({"images": []}, "a list of at least one array"),
        ({"images": [np.zeros((3, 4), np.uint8)]}, "images must have the shape"),
        ({"condition": [1]}, "labels must be None"),
        ({"tile_shape": (0, 4)}, "`tile_shape` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"batch_size": 5000}, "`batch_size` must be"),
        ({"images": [np.zeros((2**20, 128, 2), np.uint8)], "batch_size": 1}, "at most 134217728"),
    ],
)
def test_what_does_not_fit_is_one_line(free_model, arguments, message):
    images = np.zeros((1, 3, 4, 2), np.uint8)
    with pytest.raises(ValueError, match=message) as caught:
        codec.compress(free_model, **{"images": images, **arguments})
    assert "\n" not in str(caught.value)


def test_labels_are_in_the_file_and_missing_ones_are_refused(model):
    images = specimens.images(WITH_CLASSES, 2)
    with one_line("labels must be given"):
        codec.compress(model, images)
    header, _ = container.unpack(codec.compress(model, images, labels=[2, 1], batch_size=2))
    assert header.labels == (2, 1)


def test_another_condition_must_be_given_again():
    config = PixelCNNConfig(
        (3, 4, 1), num_levels=3, nr_resnet=1, nr_filters=4, nr_output_filters=4,
        condition_shape=(2,),
    )  # fmt: skip
    model = specimens.fresh(config)
    images, vectors = specimens.images(config, 3), specimens.labels(config, 3)
    data = codec.compress(model, images, vectors, batch_size=2)
    np.testing.assert_array_equal(codec.decompress(model, data, vectors), images)
    with one_line("condition must be given"):
        codec.decompress(model, data)
    with one_line("The condition must be the one that the images were compressed with"):
        codec.decompress(model, data, vectors + 1)


def test_files_of_several_threads_do_not_mix(free_model):
    sets = [specimens.images(OF_ANY_SIDES, 2, seed) for seed in range(4)]

    def there_and_back(images):
        return codec.decompress(free_model, codec.compress(free_model, images, batch_size=2))

    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        for images, found in zip(sets, executor.map(there_and_back, sets), strict=True):
            np.testing.assert_array_equal(found, images)


ON_JAX = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import pixel_cnn_pp as pcnn
from pixel_cnn_pp import config, models
size = {"num_levels": 300, "nr_resnet": 1, "nr_filters": 4, "nr_output_filters": 4}
condition = {"condition_shape": (2, 3, 1), "condition_levels": 300}
model = pcnn.Chain([
    models.make(config.PixelCNNConfig((2, 3, 1), **size)),
    models.make(config.PixelCNNConfig((4, 6, 1), **size, **condition)),
])
images = np.random.default_rng(0).integers(0, 300, (3, 4, 6, 1))
print((pcnn.decompress(model, pcnn.compress(model, images, batch_size=2)) == images).all())
"""


def test_jax_gives_back_what_it_was_given_also_by_two_stages(run_python):
    assert run_python(ON_JAX, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu") == "True\n"
