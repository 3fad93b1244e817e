"""Laws of several devices: replicas train as one device does."""

import json

import numpy as np
import pytest
from specimens import SPECIMENS, WHOLE_OF_EACH_MODEL

# One process for all: it takes seconds to start.
ON_TWO_DEVICES = """
import contextlib, json
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import specimens

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
seed = tf.constant([5, 2], tf.int64)

def nats_and_gradients(model, images, labels, first_image):
    with tf.GradientTape() as tape:
        raw_params = model(images, labels, training=True, seed=seed, first_image=first_image)
        loss = model.loss_of(raw_params, images, model.noise(images, seed, first_image))
        nats = tf.reduce_sum(loss)
    return nats, tape.gradient(nats, [weight.value for weight in model.trainable_variables])

def on_a_replica(images, labels):
    replica = tf.distribute.get_replica_context()
    first_image = 2 * tf.cast(replica.replica_id_in_sync_group, tf.int64)
    results = nats_and_gradients(model, images, labels, first_image)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.nest.flatten(results))

def split(batch):
    return strategy.experimental_distribute_values_from_function(
        lambda context: batch[2 * context.replica_id_in_sync_group:][:2]
    )

def copies(model):
    return [[np.asarray(copy) for copy in variable.value.values] for variable in model.weights]

def weights(model):
    return [variable.numpy() for variable in model.weights]

def largest_difference(arrays, others):
    return float(max(np.abs(a - b).max() for a, b in zip(arrays, others)))

def fit(one, two):
    images, labels = specimens.images(one.config, 8), specimens.labels(one.config, 8)
    result = {"losses": []}
    for model in (one, two):
        with strategy.scope() if model is two else contextlib.nullcontext():
            model.initialize(images, labels)
            model.compile(keras.optimizers.SGD(0.001), run_eagerly=True)
    start = weights(one)
    result["same start"] = all(
        np.array_equal(copy, array) for mirrored, array in zip(copies(two), start)
        for copy in mirrored
    )
    for model in (one, two):
        history = model.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
        result["losses"] += history.history["loss"]
    result["same copies"] = all(np.array_equal(*mirrored) for mirrored in copies(two))
    result["way"] = largest_difference(weights(two), start)
    result["apart"] = largest_difference(weights(two), weights(one))
    return result

errors, fitted = {}, {}
keras.config.set_floatx("float64")  # in which Keras then reports the loss
for name, config in specimens.SPECIMENS.items():
    images, labels = specimens.images(config, 4), specimens.labels(config, 4)
    one = specimens.fresh(config, dtype="float64")
    with strategy.scope():
        model = specimens.fresh(config, dtype="float64")
    expected = tf.nest.flatten(nats_and_gradients(one, images, labels, 0))
    arguments = (split(images), None if labels is None else split(labels))
    found = strategy.run(on_a_replica, arguments)
    errors[name] = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1))
        for per_replica, b in zip(found, expected, strict=True)
        for a in strategy.experimental_local_results(per_replica)
    )
    if name in NAMES:
        fitted[name] = fit(one, model)

# Compiled, with dropout, as users train.
keras.config.set_floatx("float32")
config = specimens.SPECIMENS["two_channels"]
images, labels = specimens.images(config, 8), specimens.labels(config, 8)
with strategy.scope():
    model = specimens.fresh(config)
    model.initialize(images, labels)
    model.compile(keras.optimizers.SGD(0.001))
compiled = model.fit(images, labels, batch_size=4, verbose=0).history["loss"]
same = all(np.array_equal(*mirrored) for mirrored in copies(model))
print("RESULTS", json.dumps({
    "errors": errors, "fitted": fitted, "compiled": {"losses": compiled, "same copies": same}
}))
"""


@pytest.fixture(scope="module")
def results(run_python):
    printed = run_python(ON_TWO_DEVICES.replace("NAMES", repr(WHOLE_OF_EACH_MODEL)))
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULTS"))
    return json.loads(line.removeprefix("RESULTS"))


def test_two_replicas_of_any_specimen_sum_to_the_gradients_of_the_whole_batch(results):
    assert list(results["errors"]) == list(SPECIMENS)
    # float64: the same sums in another order.
    assert max(results["errors"].values()) < 1e-10


def test_two_devices_fit_as_one_does(results):
    for result in results["fitted"].values():
        assert result["same start"], "initialised in the strategy's scope as without a strategy"
        assert result["same copies"] and result["way"] > 0
        one, two = result["losses"]
        # The same sums in another order, in float64, through two steps.
        assert two == pytest.approx(one, rel=1e-10)
        assert result["apart"] < 1e-10 * result["way"]
    assert results["compiled"]["same copies"]
    assert np.isfinite(results["compiled"]["losses"]).all()
