import jax
import pytest
import tensorflow as tf
from short_run import RUN

from pixel_cnn_pp.runs import refusals

MESSAGE = """Graph execution error:

Detected at node add defined at (most recent call last):
  File "train.py", line 8, in <module>

  File "train.py", line 7, in main

{}
\t [[{{{{node add}}}}]]
Hint: Look elsewhere. [Op:__inference_f_14]"""


@pytest.mark.parametrize(
    ("num_workers", "error", "expected", "message"),
    [
        (
            1,
            tf.errors.ResourceExhaustedError(None, None, MESSAGE.format("OOM at shape[8,8]")),
            ValueError,
            r"^A batch must fit into the memory of its device: try --accumulate_steps, --recompute "
            r"or a smaller --batch_size\. Received: batch_size=64 \(OOM at shape\[8,8\]\)$",
        ),
        (
            2,
            tf.errors.UnavailableError(None, None, MESSAGE.format("Connection reset by peer")),
            ConnectionError,
            r"^Another worker was lost, and training stopped\. Start all workers again with "
            r"--load_params: they go on .*\. Reason: Connection reset by peer$",
        ),
        (
            1,
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nb"),
            ValueError,
            r"^A batch must fit .* Received: batch_size=64 \(RESOURCE_EXHAUSTED: Out of .*\)$",
        ),
        (1, jax.errors.JaxRuntimeError("INTERNAL: a\nb"), jax.errors.JaxRuntimeError, "INTERNAL"),
        (2, tf.errors.UnavailableError(None, None, ""), ConnectionError, "Reason: $"),
        (1, tf.errors.InternalError(None, None, "a\nb"), tf.errors.InternalError, "a\nb"),
    ],
    ids=[
        "memory",
        "peer",
        "memory on JAX",
        "something else on JAX",
        "no message",
        "something else",
    ],
)
def test_what_a_user_can_mend_is_one_line(num_workers, error, expected, message):
    with (
        pytest.raises(expected, match=message),
        refusals.one_line_errors(num_workers, RUN.training),
    ):
        raise error
