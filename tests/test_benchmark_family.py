"""The benchmark of all models: a row for each, beside a public implementation where it is given."""

import pytest
from benchmark_runs import ROUNDING, measure_here, number, start_here, tables
from processes import assert_one_line, functions_of, run_script

from benchmarks import measure
from pixel_cnn_pp import config, models
from pixel_cnn_pp.config import GatedPixelCNNConfig

SCRIPT = "benchmarks/family.py"
BENCHMARK = functions_of(SCRIPT)
TINY = (
    "--nr_resnet 2 --nr_filters 4 --nr_output_filters 6 --size 4 --num_levels 5 --batch_size 2 "
    "--steps 2 --repeats 1 --naive_pixels 2"
)
# It stands for the file that the flag asks for, with the same class.
PUBLIC = """
import tensorflow as tf

class GatedPixelCNN(tf.Module):
    def __init__(self, hidden_dim, n_res, n_output):
        super().__init__()
        assert (hidden_dim, n_res, n_output) == (4, 1, 5)
        self.w = tf.Variable(tf.ones((1, n_output)))

    def __call__(self, x):
        return x[..., None] * self.w
"""

# The same for PixelRNN: what the benchmark asks of flax, and the two files.
FLAX = """
class Rngs:
    def __init__(self, seed):
        self.seed = seed

class Param:
    pass

def split(network, kind, others):
    assert kind is Param and others is ...
    return network, network.params, None

def merge(graph, params, others):
    return lambda x: graph.logits(params, x)
"""
RNN = """
import jax.numpy as jnp

class {name}:
    def __init__(self, rngs, num_layers, output_conv_out_channels, preds_dim, {features}):
        assert (num_layers, output_conv_out_channels, preds_dim) == (2, [6, 6], 5)
        assert {features} == 4
        self.params = {{"w": jnp.ones((1, preds_dim)), "b": jnp.zeros(preds_dim)}}

    def logits(self, params, x):
        assert x.shape == (2, 4, 4, 1)
        return x * params["w"] + params["b"]
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What it prints for one model and the public one."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "model.py").write_text(PUBLIC)
    with pytest.MonkeyPatch.context() as patch:
        start_here(patch)
        # The stand-in needs no Keras, so it needs no process with another one either.
        patch.setattr(
            measure, "in_new_process", lambda script, case, **_: measure_here(script, case)
        )
        arguments = [*TINY.split(), "--models=gated_pixel_cnn", f"--public={folder}"]
        done = run_script(SCRIPT, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_trained_and_drawn_from_beside_the_public_one(printed):
    (rows,) = tables(printed)
    assert [list(row) for row in rows] == [list(BENCHMARK.COLUMNS)] * 2
    assert [row["model"] for row in rows] == ["gated_pixel_cnn", BENCHMARK.PUBLIC]
    for row in rows:
        step_s = number(row["s/step"])
        assert number(row["median"]) >= step_s
        assert number(row["images/s"]) == pytest.approx(2 / step_s, rel=ROUNDING)
        assert number(row["processor s/step"]) >= 0
        assert number(row["peak MiB"]) > 100, "TensorFlow alone takes more"
    ours, public = rows
    model = models.make(
        GatedPixelCNNConfig((4, 4, 1), 5, nr_resnet=2, nr_filters=4, nr_output_filters=6)
    )
    assert int(ours["parameters"].replace(",", "")) == model.count_params()
    ratio = number(ours["naive s/image"]) / number(ours["cached s/image"])
    assert number(ours["naive / cached"]) == pytest.approx(ratio, rel=ROUNDING)
    assert public["parameters"] == "5"
    assert public["naive / cached"] == public["cached s/image"] == "-"


def test_public_networks_of_pixel_rnn_are_trained_on_jax(tmp_path, monkeypatch):
    (tmp_path / "flax").mkdir()
    (tmp_path / "flax" / "__init__.py").touch()
    (tmp_path / "flax" / "nnx.py").write_text(FLAX)
    for file, name, features in BENCHMARK.PUBLIC_RNN.values():
        (tmp_path / f"{file}.py").write_text(RNN.format(name=name, features=features))
    monkeypatch.syspath_prepend(tmp_path)
    start_here(monkeypatch)
    monkeypatch.setattr(
        measure, "in_new_process", lambda script, case, **_: measure_here(script, case)
    )
    done = run_script(SCRIPT, *TINY.split(), "--models=", f"--public_rnn={tmp_path}")
    assert done.returncode == 0, done.stderr
    (rows,) = tables(done.stdout)
    assert [row["model"] for row in rows] == list(BENCHMARK.PUBLIC_RNN)
    for row in rows:
        assert row["parameters"] == "10" and row["cached s/image"] == "-"
        assert number(row["median"]) >= number(row["s/step"]) > 0


def test_what_was_measured_stands_below(printed):
    assert "- 2 layers, 4 features, 6 in the 1x1 layers; images of 4x4x1 with 5 levels;" in printed
    assert "Machine: " in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models=pixel_rnn"], f"`models` must be of {', '.join(config.MODELS)}. Received: "),
        (["--public=nowhere"], "`public` must be a folder with model.py. Received: public=nowhere"),
        (["--public_rnn=nowhere"], "`public_rnn` must be a folder with row_lstm.py. Received: pub"),
        (["--size=4", "--naive_pixels=17"], "`naive_pixels` must be at most 16, the pixels of an"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(arguments, message):
    done = run_script(SCRIPT, *arguments)
    assert_one_line(done, f"^family.py: {message}")
    assert done.stdout == ""
