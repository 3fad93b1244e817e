"""A model that leaves out what the contract asks for is refused when it is made."""

import pytest
import specimens

from pixel_cnn_pp.models import AutoregressiveModel


def test_a_model_without_its_methods_is_refused():
    config = specimens.SPECIMENS["relu"]

    class WithoutBoth(AutoregressiveModel):
        pass

    class WithoutStep(AutoregressiveModel):
        def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
            return images

    for model, name in ((WithoutBoth, "conditionals"), (WithoutStep, "cached_step")):
        with pytest.raises(TypeError, match=f"^A model must define `{name}`. Received: Without"):
            model(config)
