"""The list of specimens has no gap: a new option of a model has to join it."""

import itertools

import numpy as np
import pytest
import specimens
from specimens import CHAINS, ONE_OF_EACH_MODEL, SPECIMENS, TINY, WHOLE_OF_EACH_MODEL

from pixel_cnn_pp import config, views


def kinds(kind, model_kind=None):
    """What the specimens come to, all or those of one model."""
    return {
        kind(each) for each in SPECIMENS.values() if model_kind is None or each.kind == model_kind
    }


def test_every_model_is_there_with_classes_and_without_and_on_1_3_and_4_channels():
    assert kinds(lambda c: c.kind) == set(config.MODELS)
    for one_of_each in (ONE_OF_EACH_MODEL, WHOLE_OF_EACH_MODEL):
        assert {SPECIMENS[name].kind for name in one_of_each} == set(config.MODELS)
    for model in config.MODELS:
        assert kinds(lambda c: c.num_classes is None, model) == {False, True}
        assert kinds(lambda c: c.image_shape[-1], model) >= {1, 3, 4}
        assert kinds(lambda c: c.num_levels, model) >= {2, 256}
        assert min(kinds(lambda c: c.num_levels - 2 * (c.num_levels == 2), model)) < 256
        assert kinds(lambda c: np.sign(c.image_shape[0] - c.image_shape[1]), model) >= {-1, 1}
        assert len(kinds(lambda c: c.nr_filters, model)) > 1
        if "nr_resnet" in config.MODELS[model].__dataclass_fields__:
            assert kinds(lambda c: c.nr_resnet > 1, model) == {False, True}
    assert {each.kind for each in TINY.values()} == set(config.MODELS)
    for name in SPECIMENS:
        assert specimens.build(name).count_params() < 100_000, "small enough for every law"


@pytest.mark.parametrize("model", config.MODELS)
def test_every_choice_of_every_option_is_there(model):
    fields = config.MODELS[model].__dataclass_fields__.values()
    for field in fields:
        if field.metadata["choices"]:
            found = kinds(lambda c, field=field: getattr(c, field.name), model)
            assert found == set(field.metadata["choices"]), field.name
        elif field.type is bool:
            assert kinds(lambda c, field=field: getattr(c, field.name), model) == {False, True}


def test_pixel_cnn_pp_is_there_with_every_nonlinearity_and_more():
    model = "pixel_cnn_pp"
    nonlinearities = ["concat_elu", "elu", "relu"]
    assert kinds(lambda c: (c.resnet_nonlinearity, c.num_classes is not None), model) == set(
        itertools.product(nonlinearities, [False, True])
    )
    assert kinds(lambda c: c.image_shape[-1], model) == {1, 2, 3, 4}
    assert max(kinds(lambda c: c.num_levels, model)) > 256
    full = [c for c in SPECIMENS.values() if getattr(c, "receptive_field", None) == "full"]
    assert {4} < {min(c.image_shape[:2]) for c in full}, "one column at the coarsest"
    assert {side % 4 for c in full for side in c.image_shape[:2]} >= {0, 1, 3}, "padded sides"
    assert {c.num_resolutions for c in full} == {1, 2, 3}
    assert kinds(lambda c: c.dropout_p > 0, model) == {False, True}
    assert kinds(lambda c: c.nr_logistic_mix > 1, model) == {False, True}


@pytest.mark.parametrize("model", ["pixel_cnn", "gated_pixel_cnn"])
def test_groups_of_features_differ_in_size_in_some_specimens_with_masks(model):
    assert 0 in kinds(lambda c: c.nr_filters % c.image_shape[-1], model)
    assert max(kinds(lambda c: c.nr_filters % c.image_shape[-1], model)) > 0


def kind_of_condition(c):
    """Classes, a vector, a picture as large as the image, a smaller one, or nothing."""
    if c.num_classes is not None:
        return "classes"
    if c.condition_shape is None or len(c.condition_shape) == 1:
        return "nothing" if c.condition_shape is None else "vector"
    return "picture" if c.condition_shape[:2] == c.image_shape[:2] else "smaller picture"


def test_gated_pixel_cnn_is_there_with_every_condition_and_more():
    model = "gated_pixel_cnn"
    assert kinds(kind_of_condition, model) == {
        "nothing", "classes", "vector", "picture", "smaller picture"
    }  # fmt: skip
    assert kinds(lambda c: c.image_shape[-1], model) == {1, 2, 3, 4}
    assert len(kinds(lambda c: c.filter_size, model)) > 1


def test_chains_are_there_with_every_view_two_and_three_stages_and_all_kinds_of_stages():
    chains = CHAINS.values()
    assert {len(chain.stages) for chain in chains} == {2, 3}
    kinds_of_views = {views.parse(name).kind for chain in chains for name in chain.views}
    assert kinds_of_views == {"image", "gray", "mean", "every"}
    assert {chain.num_classes is None for chain in chains} == {False, True}
    assert {chain.image_shape[-1] for chain in chains} >= {1, 2, 3}
    assert {chain.num_levels for chain in chains} >= {256} and len({*CHAINS}) >= 3
    later = [stage for chain in chains for stage in chain.stages[1:]]
    # Pictures as large as the image and smaller ones, embedded and as they are.
    assert {kind_of_condition(stage) for stage in later} == {"picture", "smaller picture"}
    assert {stage.embedding_resnet > 0 for stage in later} == {False, True}
    stages = [stage for chain in chains for stage in chain.stages]
    assert len({stage.kind for stage in stages}) >= 3
    assert {getattr(stage, "dropout_p", 0) > 0 for stage in stages} == {False, True}
    # Images that are no squares, so that a lost axis shows.
    assert all(stage.image_shape[0] != stage.image_shape[1] for stage in stages)
    for name in CHAINS:
        assert specimens.build(name).count_params() < 100_000, "small enough for every law"


def test_every_weight_has_a_name_of_its_own_in_a_checkpoint():
    for name in (*SPECIMENS, *CHAINS):
        model = specimens.build(name)
        keyed = model.keyed_weights()
        assert len(keyed) == len(model.weights), name
        # Another model of the configuration has another name, and the same keys.
        assert not any(key.startswith(f"{model.name}/") for key in keyed), name
