import numpy as np
import pytest

from pixel_cnn_pp.data import labels


@pytest.mark.parametrize(
    "given",
    [
        [2, 0, 1],
        np.array([2, 0, 1], np.uint64),
        np.array([[2], [0], [1]]),
        np.eye(3, dtype=int)[[2, 0, 1]],
        np.eye(3, dtype=bool)[[2, 0, 1]],
        np.eye(3, dtype=np.float32)[[2, 0, 1]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    ],
)
def test_every_usual_form_is_the_same_labels(given):
    assert labels.flattened(given, 3, "here").tolist() == [2, 0, 1]


def test_booleans_and_names_are_labels_too():
    assert labels.flattened([True, False], 2, "here").tolist() == [1, 0]
    assert labels.flattened(np.array([b"dog", b"cat"]), 2, "here").tolist() == ["dog", "cat"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(3), r"Labels must be 3 whole numbers .*Received: float64 of shape \(3,\) here"),
        ([1, 2], r"Received: int64 of shape \(2,\) here"),
        ([[1, 0], [1, 1], [0, 1]], r"Received: int64 of shape \(3, 2\) here"),
        ([[1], [1, 1], [0, 1]], "Received: list here"),
        (None, "Received: NoneType here"),
        ([0, -1, 2], r"at least 0. Received: values in \[-1, 2\] here"),
    ],
)
def test_what_is_no_label_an_image_is_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        labels.flattened(given, 3, "here")
    assert "\n" not in str(caught.value) and "  " not in str(caught.value)


def test_a_label_is_a_name_and_where_names_are_no_numbers_a_number_too():
    animals, years = ("cat", "dog", "eel"), ("9", "10", "2024")
    assert labels.numbered(np.array(["eel", "cat", "eel"]), animals, "").tolist() == [2, 0, 2]
    assert labels.numbered(np.array([2, 0]), animals, "").tolist() == [2, 0]
    assert labels.numbered(np.array([2024, 9]), years, "").tolist() == [2, 0]
    assert labels.given_labels(np.array([2, 0]), years).tolist() == [2024, 9]
    assert labels.given_labels(np.array([2, 0]), animals).tolist() == [2, 0]
    for given, names in ((3, animals), ("cow", animals), (0, years)):
        with pytest.raises(ValueError, match=rf"classes of the run: {names[0]}, .*: {given} here"):
            labels.numbered(np.array([given]), names, "here")


def test_many_classes_are_told_in_short():
    names = tuple(f"c{number:02}" for number in range(20))
    told = labels.counted(np.arange(39) % 20, names)
    assert told == "20 classes, c00 to c19, of 1 to 2 images"
    assert labels.shortened(names) == f"{', '.join(names[:12])}, ... (20 in all)"
