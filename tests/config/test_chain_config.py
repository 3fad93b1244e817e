"""The configuration of a chain: its rules, its names of stages, its JSON."""

import dataclasses
import json

import pytest
from config_cases import error_of

from pixel_cnn_pp import config
from pixel_cnn_pp.config import (
    ChainConfig,
    DataConfig,
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ModelConfig,
    PixelCNNConfig,
    RowLSTMConfig,
    RunConfig,
    TrainingConfig,
)


def stage(shape, before=None, kind=ModelConfig, **values):
    """A stage of pictures of this shape, given those of the stage before it."""
    if before is not None:
        values = {
            "condition_shape": before.image_shape,
            "condition_levels": before.num_levels,
            **values,
        }
    return kind(image_shape=shape, **values)


def two(view="mean:2", first=(4, 6, 3), last=(8, 12, 3), **values):
    first = stage(first, **values)
    return ChainConfig((first, stage(last, first)), (view, "image"))


def gray(num_gray=16, **values):
    first = stage((8, 8, 1), num_levels=num_gray, likelihood="softmax", **values)
    return ChainConfig((first, stage((8, 8, 3), first)), (f"gray:{num_gray}", "image"))


def of_every_kind():
    """A chain of five stages, one of each model."""
    found = [ModelConfig((1, 2, 2), num_levels=5, num_classes=3)]
    others = (PixelCNNConfig, GatedPixelCNNConfig, RowLSTMConfig, DiagonalBiLSTMConfig)
    for number, kind in enumerate(others, start=1):
        shape = (2**number, 2 * 2**number, 2)
        found.append(stage(shape, found[-1], kind, num_levels=5))
    return ChainConfig(found, ["mean:16", "every:8", "mean:4", "mean:2", "image"])


def test_a_run_of_a_chain_survives_its_json():
    for chain in (two(), gray(4), gray(num_classes=10), of_every_kind()):
        run = RunConfig(chain, DataConfig("photos"), TrainingConfig(seed=3))
        text = config.to_json(run)
        assert config.from_json(text) == run
        values = json.loads(text)["model"]
        assert list(values) == ["kind", "stages", "views"] and values["kind"] == "chain"
        assert [each["kind"] for each in values["stages"]] == [x.kind for x in chain.stages]
        assert config.model_config(dataclasses.asdict(chain)) == chain
    assert hash(of_every_kind()) == hash(of_every_kind())


def test_a_chain_is_known_by_its_last_stage_and_conditioned_as_its_first():
    chain = of_every_kind()
    assert (chain.image_shape, chain.num_levels) == ((16, 32, 2), 5)
    assert (chain.num_classes, chain.condition_shape, chain.condition_levels) == (3, None, 256)
    chain = gray(condition_shape=(8, 8, 2), condition_levels=7)
    assert (chain.image_shape, chain.num_levels) == ((8, 8, 3), 256)
    assert (chain.num_classes, chain.condition_shape, chain.condition_levels) == (
        None,
        (8, 8, 2),
        7,
    )


def test_stages_are_named_by_what_they_model():
    assert two().stage_names == ("4x6", "8x12")
    assert two("every:2", (4, 4, 1), (8, 8, 1)).stage_names == ("4", "8")
    assert gray().stage_names == ("gray", "colour")
    assert of_every_kind().stage_names == ("1x2", "2x4", "4x8", "8x16", "16x32")
    small = stage((4, 4, 3))
    middle = stage((8, 8, 1), small, num_levels=4)
    fine = stage((8, 8, 1), middle, num_levels=16)
    stages = (small, middle, fine, stage((8, 8, 3), fine))
    chain = ChainConfig(stages, ("mean:2", "gray:4", "gray:16", "image"))
    assert chain.stage_names == ("4", "gray4", "gray16", "colour")


def values_of(chain):
    return json.loads(json.dumps(dataclasses.asdict(chain)))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"stages": 3}, "`stages` must be a list. Received: stages=3"),
        ({"views": "mean:2"}, "`views` must be a list. Received: views='mean:2'"),
        ({"views": None}, "`views` must be a list. Received: views=None"),
        ({"stages": two().stages[:1], "views": ("image",)}, "`stages` must be at least 2, and"),
        ({"views": ("mean:2", "mean:2", "image")}, "and `views` one for each of them. Received"),
        ({"views": ("mean:3", "half")}, "A view must be image, gray:G, mean:N or every:N"),
        ({"views": ("mean:2", ["image"])}, "A view must be image, gray:G, mean:N or every:N"),
        ({"views": ("image", "mean:2")}, "`views` must end with image. Received: views=('image',"),
        ({"views": ("image", "image")}, "`views` must differ. Received: views=('image', 'image')"),
        ({"views": ("mean:3", "image")}, "multiples of 3 for the view mean:3. Received: 8 x 12"),
        (
            {"views": ("mean:4", "image")},
            "A stage must model its view mean:4, of shape (2, 3, 3) and 256 levels. "
            "Received: stage=((4, 6, 3), 256)",
        ),
        ({"stages": (two(), two().stages[1])}, "configurations of models that are no chains"),
        ({"stages": (DataConfig(), two().stages[1])}, "configurations of models that are no chain"),
        (
            {"stages": (two().stages[0], stage((8, 12, 3)))},
            "A stage after the first must be conditioned on the pictures of the stage before: "
            "`num_classes`, `condition_shape` and `condition_levels` must be (None, (4, 6, 3), 256)"
            ". Received: stage=(None, None, 256)",
        ),
        (
            {"stages": (two().stages[0], stage((8, 12, 3), num_classes=3))},
            "Received: stage=(3, None, 256)",
        ),
        (
            {"stages": (two().stages[0], stage((8, 12, 3), two().stages[0], condition_levels=9))},
            "Received: stage=(None, (4, 6, 3), 9)",
        ),
        (
            {"stages": (stage((4, 6, 3), num_levels=9), two().stages[1])},
            "of shape (4, 6, 3) and 256 levels. Received: stage=((4, 6, 3), 9)",
        ),
        (
            {"stages": (stage((4, 6, 3), energy_distance=True), two().stages[1])},
            "`stages` must have a likelihood, because log-likelihoods of stages add up. Received",
        ),
        ({"kind": "pixel_cnn"}, "`kind` must be one of chain. Received: kind='pixel_cnn'"),
    ],
)
def test_what_is_no_chain_is_one_line(changes, part):
    chain = two()
    arguments = {"stages": chain.stages, "views": chain.views, **changes}
    assert part in error_of(ChainConfig, **arguments)


def test_views_of_one_size_have_one_name_and_are_refused():
    first = stage((4, 4, 1))
    second = stage((4, 4, 1), first)
    stages = (first, second, stage((8, 8, 1), second))
    message = error_of(ChainConfig, stages, ("every:2", "mean:2", "image"))
    assert message.startswith("`views` must be of different sizes, but for gray ones and the image")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda v: v.pop("views"), "`views` must be a list. Received: views=None"),
        (lambda v: v.pop("stages"), "`stages` must be a list. Received: stages=None"),
        (lambda v: v.update(stages=3), "`stages` must be a list. Received: stages=3"),
        (lambda v: v.update(steps=3), "known fields only; a newer version may have written it"),
        (lambda v: v["stages"][1].update(nr_filters=0), "`nr_filters` must be an integer >= 1"),
        (
            lambda v: v["stages"][1].update(filters=2),
            "Received: unknown=['model.stages.1.filters']",
        ),
        (lambda v: v["stages"][0].update(kind="x"), "`model.stages.0.kind` must be one of"),
        (lambda v: v["stages"].__setitem__(0, values_of(two())), "no chains"),
        (lambda v: v["stages"].insert(0, 3), "`model.stages.0` must be a JSON object"),
    ],
)
def test_a_broken_file_of_a_chain_is_one_line(change, part):
    values = json.loads(config.to_json(RunConfig(two(), DataConfig(), TrainingConfig())))
    change(values["model"])
    assert part in error_of(config.from_json, json.dumps(values))


def test_runs_of_chains_are_compared_and_resumed():
    run = RunConfig(two(), DataConfig(), TrainingConfig())
    other = dataclasses.replace(run, model=gray())
    assert config.differences(run, run) == []
    lines = config.differences(run, other)
    assert [line.partition(":")[0] for line in lines] == ["stages", "views"]
    one = dataclasses.replace(run, model=two().stages[0])
    assert config.differences(run, one) == ["kind: 'chain' != 'pixel_cnn_pp'"]
    resumed = config.resume(run, {"seed": 9, "save_dir": "moved"})
    assert (resumed.model, resumed.training.seed) == (run.model, 9)
    assert config.resume(run, {"kind": "chain"}) == run
    message = error_of(config.resume, run, {"kind": "pixel_cnn_pp"})
    assert "kind: 'chain' != 'pixel_cnn_pp'" in message
    message = error_of(config.resume, run, {"nr_filters": 9})
    assert message.startswith("`nr_filters` must be left out: the model chain has no such option")
