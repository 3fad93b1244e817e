import numpy as np
import pytest

from pixel_cnn_pp.data import decoding, store, writing


def test_decoded_images_come_in_order_and_broken_ones_with_their_reason(tmp_path):
    num_images = 3 * decoding.CHUNK + 5

    def decode(name, number):
        return f"bad {name}" if number % 500 == 7 else [np.full((4, 4, 1), number % 256, np.uint8)]

    items = ((f"file {number}", number, number % 3) for number in range(num_images))
    with writing.split_writer(tmp_path, "train", (4, 4, 1), np.uint8) as writer:
        unreadable = decoding.append_decoded(writer, items, decode, None)
    writing.write_about(tmp_path, 256, 3)
    assert unreadable == {f"file {number}": f"bad file {number}" for number in (7, 507, 1007, 1507)}
    stored = store.load_stored(tmp_path, "train")
    numbers = [number for number in range(num_images) if number % 500 != 7]
    np.testing.assert_array_equal(stored.images[:, 0, 0, 0], np.array(numbers) % 256)
    np.testing.assert_array_equal(stored.labels, np.array(numbers) % 3)


def test_a_tenth_of_the_files_may_be_unreadable_and_no_more():
    unreadable = dict.fromkeys("abcd", "cut")
    decoding.check_readable(unreadable, 40, "here")
    message = r"At most 10% .* Received: 4 of 39 in here: a \(cut\), b \(cut\), c \(cut\), \.\.\.$"
    with pytest.raises(ValueError, match=message):
        decoding.check_readable(unreadable, 39, "here")


def test_what_was_left_out_is_counted_and_named():
    assert decoding.describe_left_out({}) == ""
    assert decoding.describe_left_out({"a": "cut", "b": "empty"}, 3, (8, 12)) == (
        "2 left out as unreadable: a (cut), b (empty); 3 left out as smaller than 8 x 12"
    )
