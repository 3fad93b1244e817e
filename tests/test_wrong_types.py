"""Whatever the type of what a user gives to a public function, the error is a ValueError."""

import numpy as np
import pytest
import specimens

import pixel_cnn_pp as pcnn

MODEL = specimens.TINY["pixel_cnn_pp"]
IMAGES = np.zeros((2, *MODEL.image_shape), np.uint8)
ANYTHING = [None, "word", 1.5, [], {}, object(), 3]
# What is a right value where it stands.
RIGHT = {"labels": [None], "image_shape": [None], "known_mask": [None], "init_images": [None]}
RIGHT |= {"progress": [None], "num_samples": [3], "seed": [3], "path": ["word"]}
RIGHT |= {"temperature": [1.5, 3], "log_scale_offset": [1.5, 3]}
OF_SAMPLE = [
    *("num_samples", "labels", "seed", "method", "image_shape", "temperature"),
    *("log_scale_offset", "mode", "init_images", "known_mask", "progress"),
]
CALLS = {
    "run_dir": pcnn.load,
    "weights": lambda x: pcnn.load("nowhere", x),
    "model": lambda x: pcnn.sample(x, 1),
    "config": pcnn.PixelCNNPP,
    "config of PixelCNN": pcnn.PixelCNN,
    "served": lambda x: pcnn.export_saved_model(x, "/dev/null/served"),
    "path": lambda x: pcnn.export_saved_model(specimens.build("relu"), x),
    "ckpt_prefix": pcnn.load_release,
    "raw_params": lambda x: specimens.build("relu").distribution(x),
    "images": lambda x: specimens.build("relu").log_prob(x),
    "levels": lambda x: pcnn.to_levels(IMAGES / 4, x, (0, 1)),
    "value_range": lambda x: pcnn.to_levels(IMAGES / 4, 4, x),
    **{
        name: lambda x, name=name: pcnn.sample(
            specimens.build("relu"), **{"num_samples": 1, name: x}
        )
        for name in OF_SAMPLE
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_a_value_error_of_one_line(name):
    for value in ANYTHING:
        if not any(value is right for right in RIGHT.get(name, ())):
            if name == "levels" and value == 3:
                continue
            with pytest.raises((ValueError, OSError)) as caught:
                CALLS[name](value)
            assert "\n" not in str(caught.value)
