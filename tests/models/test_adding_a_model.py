"""Added as docs/adding_a_model.md says, its model keeps the laws and runs."""

import re
import runpy
import shlex

import keras
import pytest
import specimens
from processes import ROOT, run_script

from pixel_cnn_pp import config, export, models
from pixel_cnn_pp.config import run as run_file

PAGE = (ROOT / "docs" / "adding_a_model.md").read_text()
KIND = "neighbours"
LAWS = {
    "test_step.py": [
        "test_the_steps_give_the_raw_parameters_of_whole_images",
        "test_the_state_grows_with_the_width_and_the_batch_and_not_with_the_height",
        "test_the_steps_compute_with_the_weights_that_they_are_given",
    ],
    "test_causality.py": [
        "test_a_changed_sub_pixel_changes_no_parameter_before_it_but_some_after_it",
        "test_a_changed_sub_pixel_changes_its_own_and_later_probabilities_alone",
        "test_the_probabilities_of_all_levels_sum_to_1_and_give_the_likelihood_of_the_image",
    ],
    "test_draws.py": ["test_cached_and_naive_draw_identical_images"],
    "test_keras_model.py": [
        "test_fit_lowers_the_bits_per_dim_that_it_reports",
        "test_a_model_is_made_again_from_its_configuration_and_from_its_file",
    ],
}


def block_of(place):
    """The code that the page gives for a place: the block below the line that begins with it."""
    (code,) = re.findall(rf"^`{re.escape(place)}`[^`]*\n\n```python\n(.*?)```", PAGE, re.M | re.S)
    return code


def run_block(file, names):
    exec(compile(block_of(file), file, "exec"), names)
    return names


@pytest.fixture(scope="module", autouse=True)
def added():
    """Adds what the page adds, and takes it away."""
    with pytest.MonkeyPatch.context() as patch:
        names = run_block("pixel_cnn_pp/config/neighbours.py", {"__name__": "neighbours_config"})
        config_class = names["NeighboursConfig"]
        patch.setitem(config.MODELS, KIND, config_class)
        patch.setitem(run_file.PARTS, "model", (*run_file.PARTS["model"], config_class))
        names = run_block("pixel_cnn_pp/models/neighbours.py", {"__name__": "neighbours"})
        patch.setitem(models._CLASSES, KIND, names["Neighbours"])
        for place, listed in (("tests/specimens.py", "SPECIMENS"), ("TINY", "TINY")):
            configs = eval(f"{{{block_of(place)}}}", {"NeighboursConfig": config_class})
            for name, specimen in configs.items():
                patch.setitem(getattr(specimens, listed), name, specimen)
        for name in ("ONE_OF_EACH_MODEL", "WHOLE_OF_EACH_MODEL", "ONE_OF_EACH_LIKELIHOOD"):
            patch.setattr(specimens, name, [*getattr(specimens, name), KIND])
        yield
        keras.saving.get_custom_objects().pop("pixel_cnn_pp>Neighbours")


def test_the_tables_are_where_the_page_says():
    assert "to `AnyModelConfig` in `pixel_cnn_pp/config/models.py`" in PAGE
    assert config.models.AnyModelConfig and f'"{KIND}": Neighbours' in PAGE
    assert "`pixel_cnn_pp/models/__init__.py` has the table `_CLASSES`" in PAGE


def test_the_specimens_have_no_gap():
    checks = runpy.run_path(str(ROOT / "tests" / "models" / "test_specimens.py"))
    checks["test_every_model_is_there_with_classes_and_without_and_on_1_3_and_4_channels"]()
    checks["test_every_choice_of_every_option_is_there"](KIND)


@pytest.mark.parametrize(("file", "law"), [(file, law) for file in LAWS for law in LAWS[file]])
def test_it_keeps_the_laws(file, law, tmp_path, monkeypatch):
    function = runpy.run_path(str(ROOT / "tests" / "laws" / file))[law]
    given = {"name": KIND, "is_eager": True, "tmp_path": tmp_path, "monkeypatch": monkeypatch}
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    function(**{name: given[name] for name in arguments})


def test_its_draws_follow_its_probabilities():
    laws = runpy.run_path(str(ROOT / "tests" / "laws" / "test_draws.py"))
    whole = laws["Whole"](specimens.TINY[KIND])
    laws["test_the_probabilities_of_all_images_sum_to_1"](whole)
    laws["test_draws_agree_with_the_probabilities_of_sub_pixels_and_of_pairs"](whole)


def test_the_commands_of_the_page_train_score_draw_complete_and_export(tmp_path, monkeypatch):
    (block,) = re.findall(r"^```\n(python train.py .*?)```", PAGE, re.M | re.S)
    # XLA compiles for seconds; that an export with it runs is seen elsewhere.
    whole = export.export_saved_model
    monkeypatch.setattr(
        export, "export_saved_model", lambda m, p, xla, *more: whole(m, p, False, *more)
    )
    for line in block.splitlines():
        python, script, *arguments = shlex.split(line)
        assert python == "python"
        if script == "train.py":
            arguments += ["--max_epochs", "2", "--num_samples", "0", "--learning_rate", "0.01"]
        arguments = [re.sub("^(save|served)/", rf"{tmp_path}/\1/", x) for x in arguments]
        done = run_script(script, *arguments)
        assert done.returncode == 0, done.stderr
        if script == "train.py":
            losses = [float(x) for x in re.findall(r"train (\d+\.\d+)", done.stdout)]
            assert losses[1] < losses[0], done.stdout
        if script == "evaluate.py":
            assert "bits/dim" in done.stdout
    assert (tmp_path / "served" / "neighbours" / "1" / "saved_model.pb").is_file()
