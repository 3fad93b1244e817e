"""The mathematics of layers and likelihoods gives the same numbers on Keras's JAX backend."""

import inspect

import numpy as np


def backend_numbers(path):
    """Writes numbers of every function and of two layers; stands alone, for any Keras backend."""
    import keras
    import numpy as np
    from keras import ops

    from pixel_cnn_pp import layers, likelihoods
    from pixel_cnn_pp.likelihoods import mixture_statistics

    def fast(function):
        if keras.backend.backend() != "jax":
            return function
        import jax  # compiles each operation on its own when it is not told to compile the whole

        return jax.jit(function)

    rng = np.random.default_rng(0)
    mixture = likelihoods.LogisticMixture(2, 17)
    raw_params = rng.normal(size=(2, 3, 4, 30)).astype("float32")
    levels = rng.integers(0, 17, (2, 3, 4, 2))
    uniforms = [rng.uniform(0.01, 0.99, (2, 3, 4, n)).astype("float32") for n in (5, 2)]

    def of_mixture(raw_params, levels, *uniforms):
        params = mixture.split(raw_params)
        return {
            "log_prob": mixture.log_prob(params, levels),
            "sample": mixture.sample(params, *uniforms),
            "mean": mixture_statistics.mean(mixture, params),
            "mode": mixture_statistics.mode(mixture, params),
        }

    numbers = dict(fast(of_mixture)(raw_params, levels, *uniforms))
    inputs = [rng.normal(size=(2, 4, 6, n)).astype("float32") for n in (5, 3)]
    block = layers.GatedResidualBlock(layers.DownRightShiftedConv2D)
    block.build(inputs[0].shape, inputs[1].shape)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape))

    def of_block(x, a):
        before = block(x, a)
        with keras.StatelessScope():
            return {"block": before, "initialized_block": block.initialize(x, a)}

    numbers.update(fast(of_block)(*inputs))
    transpose = layers.DownShiftedConv2DTranspose(4)
    transpose.build(inputs[0].shape)
    transpose.v.assign(rng.normal(size=transpose.v.shape))
    masked = layers.MaskedConv2D(7, 3, "B", 2)
    masked.build(inputs[0].shape)
    masked.w.assign(rng.normal(size=masked.w.shape))
    numbers["transpose"], numbers["masked"] = fast(lambda x: (transpose(x), masked(x)))(inputs[0])

    for likelihood in (
        likelihoods.DiscretizedMixture(2, 17, 2),
        likelihoods.DequantizedMixture(2, 17, 2),
        likelihoods.LinearSoftmax(2, 5),
        likelihoods.Softmax(2, 5),
        likelihoods.Bernoulli(2),
    ):
        raw_params = rng.normal(size=(3, 4, likelihood.num_params)).astype("float32")
        levels = rng.integers(0, likelihood.num_levels, (3, 4, 2))
        noise, uniforms = (
            rng.uniform(0.01, 0.99, (3, 4, n)).astype("float32")
            for n in (2, likelihood.num_uniforms)
        )
        controls = np.array([0.8, 0.1, 0.0], "float32")

        def everything(raw_params, levels, noise, uniforms, controls, of=likelihood):
            earlier = [levels[..., 0]]
            return {
                "log_prob": of.log_prob(raw_params, levels, noise),
                "log_pmf": of.log_pmf(raw_params, 1, earlier),
                "draw": of.draw(raw_params, 1, earlier, uniforms, controls),
            }

        found = fast(everything)(raw_params, levels, noise, uniforms, controls)
        numbers.update({f"{type(likelihood).__name__}_{name}": x for name, x in found.items()})

    # The random bits of both backends for the seeds of images.
    def noise_of(seeds):
        found = {"image_seeds": [], "noise_dropout": [], "noise_uniforms": []}
        ones = ops.ones((4, 512))
        for i in range(seeds.shape[0]):
            dropout = layers.Dropout(0.5)
            drawn = dropout.draw(seeds[i], 4, dropout.num_bytes(512))
            found["noise_dropout"].append(dropout.drop(ones, drawn)(ones))
            found["image_seeds"].append(layers.image_seeds(seeds[i], 4, 5))
            uniforms = layers.image_uniforms(found["image_seeds"][-1], (512,))
            found["noise_uniforms"].append(uniforms)
        found = {name: ops.concatenate(values) for name, values in found.items()}
        for rate in (0.5, 0.1, 0.999999):
            dropout = layers.Dropout(rate)
            drawn = dropout.draw(seeds[0], 64, dropout.num_bytes(8192))
            ones = ops.ones((64, 8192))
            found[f"dropped_{rate}"] = dropout.drop(ones, drawn)(ones)
        return found

    seeds = [[seed, 9] for seed in (5, 5 + 2**15, 5 + 2**16, 2**31 - 1)]
    for name, value in fast(noise_of)(ops.convert_to_tensor(seeds, dtype="uint32")).items():
        value = np.unique(value) if name.startswith("dropped") else np.asarray(value)
        numbers[name] = value.astype("int64") if name == "image_seeds" else value
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
    assert len(ours.files) == 29
    for name in ours.files:
        assert theirs[name].dtype == ours[name].dtype, name
        if name.startswith("noise_"):
            for noise in (theirs[name], ours[name]):
                # 16 images of 512 numbers, of seeds that differ in their high bits.
                correlations = np.corrcoef(noise) - np.eye(16)
                assert np.abs(correlations).max() < 5 / np.sqrt(512), name
        else:
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(ours["dropped_0.1"], np.float32([0, 65536 / 58982]))
    np.testing.assert_array_equal(ours["dropped_0.999999"], [0, 65536])
