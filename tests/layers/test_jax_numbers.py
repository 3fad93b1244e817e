"""The mathematics of layers and likelihoods gives the same numbers on Keras's JAX backend."""

import inspect

import numpy as np


def backend_numbers(path):
    """Writes numbers of every function and of two layers; stands alone, for any Keras backend."""
    import keras
    import numpy as np
    from keras import ops

    from pixel_cnn_pp import layers, likelihoods

    def fast(function):
        if keras.backend.backend() != "jax":
            return function
        import jax  # compiles each operation on its own when it is not told to compile the whole

        return jax.jit(function)

    rng = np.random.default_rng(0)
    mixture = likelihoods.LogisticMixture(2, 17)
    params = mixture.split(ops.convert_to_tensor(rng.normal(size=(2, 3, 4, 30)), "float32"))
    levels = rng.integers(0, 17, (2, 3, 4, 2))
    uniforms = [rng.uniform(0.01, 0.99, (2, 3, 4, n)).astype("float32") for n in (5, 2)]
    numbers = {
        "log_prob": fast(mixture.log_prob)(params, levels),
        "sample": fast(mixture.sample)(params, *uniforms),
        "mean": fast(mixture.mean)(params),
        "mode": fast(mixture.mode)(params),
    }
    inputs = [rng.normal(size=(2, 4, 6, n)).astype("float32") for n in (5, 3)]
    block = layers.GatedResidualBlock(layers.DownRightShiftedConv2D)
    block.build(inputs[0].shape, inputs[1].shape)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape))
    numbers["initialized_block"] = block.initialize(*inputs)
    numbers["block"] = block(*inputs)
    transpose = layers.DownShiftedConv2DTranspose(4)
    transpose.build(inputs[0].shape)
    transpose.v.assign(rng.normal(size=transpose.v.shape))
    numbers["transpose"] = transpose(inputs[0])
    # Which units are dropped is the backend's own.
    seed = keras.ops.convert_to_tensor([1, 2], dtype="uint32")
    dropped = layers.Dropout(0.5, seed, 10, 100)(np.ones((10, 100), "float32"))
    numbers["dropout_values"] = np.unique(dropped)
    np.savez(path, **{name: np.asarray(value) for name, value in numbers.items()})


def test_the_jax_backend_gives_the_same_numbers(tmp_path, run_python):
    code = f"""
import sys, keras
{inspect.getsource(backend_numbers)}
assert keras.backend.backend() == "jax"
backend_numbers(sys.argv[1])
assert "tensorflow" not in sys.modules  # the mathematics must not import it
"""
    run_python(code, tmp_path / "jax.npz", KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    backend_numbers(tmp_path / "tensorflow.npz")
    theirs, ours = np.load(tmp_path / "jax.npz"), np.load(tmp_path / "tensorflow.npz")
    assert len(ours.files) == 8
    for name in ours.files:
        assert theirs[name].dtype == ours[name].dtype, name
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5, atol=1e-5, err_msg=name)
