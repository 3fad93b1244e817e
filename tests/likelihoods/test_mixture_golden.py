"""The mixture is that of the original release, wherever that is exact; and its page in docs/."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from mixture_cases import FLOAT32_EPS, GOLDEN

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.likelihoods import LogisticMixture, logistic

LOSSES = np.load(GOLDEN / "loss_values.npz")


DRAWS = np.load(GOLDEN / "mixture_sampling.npz")


def reference_log_mass(levels, loc, log_scale, approximate=False):
    """Float64, L = 256: log sigmoid of the nearer edge, minus what the farther one leaves of it.

    With `approximate`, the release's own value inside where the mass is at most 1e-5: the density
    in the middle of the bin, log-pdf - log(127.5).
    """
    x = (tf.constant(levels, tf.float64) - 127.5) / 127.5
    middle = (x - loc) * tf.exp(-log_scale)
    half_width = tf.exp(-log_scale) / 255
    # Mirrored into the lower tail, where logarithms keep their digits.
    near, far = -tf.abs(middle) + half_width, -tf.abs(middle) - half_width
    log_near, log_far = tf.math.log_sigmoid(near), tf.math.log_sigmoid(far)
    inside = log_near + tf.math.log1p(-tf.exp(log_far - log_near))
    if approximate:
        log_density = middle - log_scale - 2 * tf.math.softplus(middle) - np.log(127.5)
        inside = tf.where(inside > np.log(1e-5), inside, log_density)
    outermost = tf.where(
        levels == 0,
        tf.math.log_sigmoid(middle + half_width),
        tf.math.log_sigmoid(-middle + half_width),
    )
    return tf.where((levels == 0) | (levels == 255), outermost, inside)


def reference_pixels(raw_params, levels, approximate=False):
    """The release's likelihood of three channels in float64, from the raw parameters.

    Returns the log mass of every channel and component [..., 3, K], log pi times their product
    [..., K], and the size of the logistics' arguments: (|x| + |loc| + half a bin) / scale.
    """
    num_components = raw_params.shape[-1] // 10
    logits, rest = raw_params[..., :num_components], raw_params[..., num_components:]
    rest = tf.reshape(rest, [*rest.shape[:-1], 3, 3 * num_components])
    loc, log_scale, coeffs = tf.split(rest, 3, axis=-1)
    log_scale, coeffs = tf.maximum(log_scale, -7.0), tf.tanh(coeffs)
    x = (tf.constant(levels, tf.float64)[..., None] - 127.5) / 127.5  # [..., 3, 1]
    red, green = x[..., 0, :], x[..., 1, :]
    loc = tf.stack(
        [
            loc[..., 0, :],
            loc[..., 1, :] + coeffs[..., 0, :] * red,
            loc[..., 2, :] + coeffs[..., 1, :] * red + coeffs[..., 2, :] * green,
        ],
        axis=-2,
    )
    levels = np.broadcast_to(levels[..., None], loc.shape)
    log_mass = reference_log_mass(levels, loc, log_scale, approximate)
    joint = tf.nn.log_softmax(logits) + tf.reduce_sum(log_mass, axis=-2)
    arguments = (1 / 255 + tf.abs(x) + tf.abs(loc)) * tf.exp(-log_scale)
    return log_mass, joint, arguments


def golden_pixels(num_components):
    """The recorded case and its float64 values, exact and as the release approximates."""
    raw_params, levels = LOSSES[f"mix{num_components}/l"], LOSSES["x_u8"]
    values = {"raw_params": raw_params, "levels": levels}
    for kind in ("exact", "release"):
        with tf.GradientTape() as tape:
            source = tf.constant(raw_params, tf.float64)
            tape.watch(source)
            log_mass, joint, arguments = reference_pixels(source, levels, kind == "release")
            log_prob = tf.reduce_logsumexp(joint, axis=-1)
            loss = -tf.reduce_sum(log_prob)
        values[kind] = {
            "log_mass": log_mass.numpy(),
            "log_prob": log_prob.numpy(),
            "responsibility": tf.exp(joint - log_prob[..., None]).numpy(),
            "gradient": tape.gradient(loss, source).numpy(),
        }
    values["arguments"] = arguments.numpy()
    values["outermost"] = np.isin(levels, (0, 255))[..., None] & np.ones_like(log_mass, bool)
    # The release approximates inside, where the mass is at most 1e-5.
    values["approximated"] = ~values["outermost"] & (np.exp(values["exact"]["log_mass"]) <= 1e-5)
    # What float32 may do to one log mass: an argument (x - loc) / s is good to eps of the sizes of
    # x and loc over s, the rest to eps of its own size. The release also subtracts two sigmoids,
    # good to eps of 1, so that the logarithm is only good to eps over the mass.
    rounding = FLOAT32_EPS * (1 + values["arguments"] + np.abs(values["exact"]["log_mass"]))
    cancelling = ~values["outermost"] & ~values["approximated"]
    mass = np.where(cancelling, np.exp(values["exact"]["log_mass"]), 1.0)
    values["rounding"] = rounding
    values["release_rounding"] = rounding + np.where(cancelling, FLOAT32_EPS / mass, 0.0)
    # Its approximation sums m - 2 softplus(m), terms of up to three times the size of the result.
    values["release_rounding"][values["approximated"]] *= 3
    # The same for a pixel, through the components that matter to it.
    matters = values["release"]["responsibility"][..., None, :] > 1e-9
    for name in ("rounding", "release_rounding"):
        values[f"pixel_{name}"] = np.sum(
            np.max(np.where(matters, values[name], 0.0), axis=-1), axis=-1
        )
    # Pixels in which no component that matters is approximated: there the release is exact.
    values["release_is_exact"] = ~np.any(matters & values["approximated"], axis=(-1, -2))
    return values


def our_gradient(raw_params, levels):
    """log-probabilities of the pixels and the gradient of their negative sum."""
    mixture = LogisticMixture(3, 256)
    with tf.GradientTape() as tape:
        source = tf.constant(raw_params)
        tape.watch(source)
        log_prob = mixture.log_prob(mixture.split(source), levels)
        loss = -tf.reduce_sum(log_prob)
    return log_prob.numpy(), tape.gradient(loss, source).numpy()


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_log_masses_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/log_prob_per_channel_component"]
    params = LogisticMixture(3, 256).split(golden["raw_params"])
    x = LOSSES["x"][..., None]
    loc = np.array(params.loc)
    coeffs = np.asarray(params.coeffs)
    loc[..., 1, :] += coeffs[..., 0, :] * x[..., 0, :]
    loc[..., 2, :] += coeffs[..., 1, :] * x[..., 0, :] + coeffs[..., 2, :] * x[..., 1, :]
    ours = logistic.logistic_bin_log_mass(
        golden["levels"][..., None], ops.convert_to_tensor(loc), params.log_scale, 256
    )
    ours = np.asarray(ours, np.float64)
    is_exact = ~golden["approximated"]
    assert 0.5 < np.mean(is_exact) < 0.7  # the recording covers both
    # Twice: once for either side.
    error = np.abs(ours - recorded)
    assert np.all(error[is_exact] < 2 * (golden["rounding"] + golden["release_rounding"])[is_exact])
    # Where the release approximates (mass <= 1e-5) it is off by up to 2 nats, so that ours, which
    # is exact everywhere, is held against float64; and the release against float64 with its
    # approximation, so that this is known to be the only difference.
    assert np.max(error[~is_exact]) > 1.0
    assert np.all(np.abs(ours - golden["exact"]["log_mass"]) < 2 * golden["rounding"])
    error = np.abs(recorded - golden["release"]["log_mass"])
    assert np.all(error < 2 * golden["release_rounding"])


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_likelihoods_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/log_prob_per_pixel"]
    ours, _ = our_gradient(golden["raw_params"], golden["levels"])
    is_exact = golden["release_is_exact"]
    assert np.sum(is_exact) > 20
    rounding, release_rounding = golden["pixel_rounding"], golden["pixel_release_rounding"]
    error = np.abs(ours - recorded)
    assert np.all(error[is_exact] < 2 * (rounding + release_rounding)[is_exact])
    # Elsewhere as above: ours against float64, the release against its approximation.
    assert np.all(np.abs(ours - golden["exact"]["log_prob"]) < 2 * rounding)
    assert np.all(np.abs(recorded - golden["release"]["log_prob"]) < 2 * release_rounding)


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_gradients_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/grad_sum"]
    _, ours = our_gradient(golden["raw_params"], golden["levels"])
    assert np.all(np.isfinite(ours))
    is_exact = golden["release_is_exact"]
    # A derivative of log P is as good as P, relative to the pixel's largest one.
    scale = np.max(np.abs(golden["exact"]["gradient"]), axis=-1)
    rounding, release_rounding = golden["pixel_rounding"], golden["pixel_release_rounding"]
    error = np.max(np.abs(ours - recorded), axis=-1) / scale
    assert np.all(error[is_exact] < 2 * (rounding + release_rounding)[is_exact])
    # Elsewhere the approximation has other derivatives: as above, both against float64.
    error = np.max(np.abs(ours - golden["exact"]["gradient"]), axis=-1) / scale
    assert np.all(error < 2 * rounding)
    scale = np.max(np.abs(golden["release"]["gradient"]), axis=-1)
    error = np.max(np.abs(recorded - golden["release"]["gradient"]), axis=-1) / scale
    assert np.all(error < 2 * release_rounding)


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_unrounded_draws_are_the_recorded_ones(num_components):
    case = f"mix{num_components}"
    mixture = LogisticMixture(3, 256)
    params = mixture.split(DRAWS[f"{case}/l"])
    uniforms = DRAWS[f"{case}/u_mix"], DRAWS[f"{case}/u_logistic"]
    component = DRAWS[f"{case}/selected_component"]
    selected = mixture.select(params, uniforms[0])
    index = component[..., None, None]
    expected_loc = np.take_along_axis(np.asarray(params.loc), index, axis=-1)
    np.testing.assert_array_equal(selected.loc, expected_loc)

    # Channel after channel, none of them rounded before it shifts the next.
    draws = []
    for channel in range(3):
        own = uniforms[1][..., channel : channel + 1]
        draws.append(mixture.draw_value(selected, channel, draws, own))
    draws = np.concatenate(draws, axis=-1)
    # A draw is a sum of its mean, of scale * noise and of the earlier channels' shifts, each good
    # to an ulp or two of its own size; what is clipped is exact.
    noise = np.log(uniforms[1]) - np.log1p(-uniforms[1])
    size = 2 + np.abs(expected_loc[..., 0])
    size += np.exp(np.asarray(selected.log_scale)[..., 0]) * np.abs(noise)
    size = np.maximum.accumulate(size, axis=-1)
    error = np.abs(draws - DRAWS[f"{case}/x"])
    assert np.all(error <= 4 * FLOAT32_EPS * size)
    is_clipped = np.abs(DRAWS[f"{case}/x"]) == 1.0
    assert np.mean(is_clipped) > 0.2
    # Where both are clipped there is no rounding left, wherever the unclipped value was.
    assert np.mean(error[is_clipped] == 0.0) > 0.99


def test_split_of_three_channels_is_the_releases_reshape():
    raw_params = np.random.default_rng(0).normal(size=(2, 4, 6, 50)).astype("float32") * 4
    params = LogisticMixture(3, 256).split(raw_params)
    np.testing.assert_array_equal(params.mixture_logits, raw_params[..., :5])
    rest = raw_params[..., 5:].reshape(2, 4, 6, 3, 15)
    np.testing.assert_array_equal(params.loc, rest[..., :5])
    np.testing.assert_array_equal(params.log_scale, np.maximum(rest[..., 5:10], -7.0))
    assert np.min(params.log_scale) == -7.0
    np.testing.assert_allclose(params.coeffs, np.tanh(rest[..., 10:]), atol=2 * FLOAT32_EPS)


def test_the_unit_scale_is_the_recorded_one():
    np.testing.assert_array_equal(likelihoods.to_unit_scale(LOSSES["x_u8"], 256), LOSSES["x"])


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 2), (2, 17), (3, 256), (4, 1000)])
def test_the_page_on_the_likelihood_computes_what_is_implemented(num_channels, num_levels):
    page = pathlib.Path(likelihoods.__file__).parents[2] / "docs" / "likelihood.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names = {}
    exec(compile("".join(blocks), page.name, "exec"), names)
    mixture = LogisticMixture(num_channels, num_levels)
    rng = np.random.default_rng(num_channels)
    # Wide, so that log-scales are floored and both tails are reached.
    raw_params = 5 * rng.standard_normal((4, 8, 3 * mixture.params_per_component()))
    image = rng.integers(0, num_levels, (4, 8, num_channels))
    image[0, :2] = [[0], [num_levels - 1]]
    log_prob = mixture.log_prob(mixture.split(tf.constant(raw_params)), image)
    expected = likelihoods.bits_per_dim(-np.sum(log_prob), image.size)
    # float64; exp(7) magnifies the rounding of a mean, some 1e-16, by a thousand.
    found = names["bits_per_dim"](raw_params, image, num_levels)
    assert found == pytest.approx(expected, rel=1e-12)
