"""All weights and slots of a run on JAX as vectors."""

import inspect


def check_vectors():
    import jax
    import numpy as np

    from pixel_cnn_pp import models
    from pixel_cnn_pp.config import ModelConfig, TrainingConfig
    from pixel_cnn_pp.runs import optimizers, vectors

    rng = np.random.default_rng(0)
    model = models.make(ModelConfig(image_shape=(4, 4, 1), nr_resnet=1, nr_filters=2))
    own, of_vector = (optimizers.make_optimizer(TrainingConfig()) for _ in range(2))
    own.build(model.trainable_variables)
    way = vectors.Vectors(model, own, of_vector, outputs_first=True)
    for variable in way.variables:
        variable.assign(rng.normal(size=variable.shape).astype(variable.dtype))
    expected = [np.asarray(variable) for variable in way.variables]
    state = way.join()
    assert state.weights.ndim == 1 and not np.array_equal(state.weights[:18], expected[0].ravel())
    parts = jax.jit(way.split)(state.weights)
    for part, weight in zip(parts, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(part, weight)
    for variable in way.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    way.assign(state)
    for variable, values in zip(way.variables, expected, strict=True):
        np.testing.assert_array_equal(variable, values)


def test_variables_go_to_vectors_and_back_with_the_last_axis_of_a_filter_first(run_python):
    code = f"{inspect.getsource(check_vectors)}\ncheck_vectors()"
    run_python(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
