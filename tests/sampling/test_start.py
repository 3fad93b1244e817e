"""What a drawing starts from: the seeds of the stages."""

import tensorflow as tf

from pixel_cnn_pp import sampling


def test_each_stage_has_a_seed_of_its_own_also_in_a_graph():
    split = tf.function(sampling.seed_of, autograph=False)
    found = []
    for seed in (0, 1, -1, 2**31 - 1, -(2**31)):
        assert sampling.seed_of(seed, 0) == seed
        own = [int(sampling.seed_of(seed, number)) for number in range(5)]
        assert own == [int(split(tf.constant(seed), number)) for number in range(5)]
        found += own
    assert len(set(found)) == len(found)
