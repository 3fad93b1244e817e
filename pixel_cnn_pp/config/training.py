"""The options of the training: how a model is trained, and what a run writes."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config.fields import about, check_fields, message


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained, and what a run writes during training.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> TrainingConfig(batch_size=32).learning_rate
      0.001
    """

    save_dir: str = field(
        default="save",
        metadata=about(
            "Directory of the run, for its checkpoints, configuration and samples",
            short_name="o",
            may_change=True,
        ),
    )
    save_interval: int = field(
        default=20,
        metadata=about(
            "Number of epochs between two checkpoints",
            short_name="t",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    save_minutes: float = field(
        default=30.0,
        metadata=about(
            "Minutes between two checkpoints within an epoch; 0 writes no checkpoint within an "
            "epoch",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    keep: int = field(
        default=2,
        metadata=about(
            "Number of checkpoints to keep; older ones are deleted",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    load_params: bool = field(
        default=False,
        metadata=about(
            "Resume from the checkpoint in save_dir",
            short_name="r",
            may_change=True,
        ),
    )
    class_conditional: bool = field(
        default=False,
        metadata=about("Condition the model on the labels", short_name="c"),
    )
    augment: str = field(
        default="none",
        metadata=about(
            "Augmentation of the training images: flip mirrors a random half of them, chosen anew "
            "in every epoch",
            choices=("none", "flip"),
            may_change=True,
        ),
    )
    optimizer: str = field(
        default="adamax",
        metadata=about("The optimizer", choices=("adamax", "adam", "rmsprop")),
    )
    learning_rate: float = field(
        default=0.001,
        metadata=about(
            "Learning rate at the first step",
            short_name="l",
            bounds=[(">", 0)],
            may_change=True,
        ),
    )
    lr_decay: float = field(
        default=0.999995,
        metadata=about(
            "Factor by which the learning rate is multiplied at every step",
            short_name="e",
            bounds=[(">", 0), ("<=", 1)],
            may_change=True,
        ),
    )
    batch_size: int = field(
        default=16,
        metadata=about(
            "Images per step on each GPU",
            short_name="b",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    init_batch_size: int = field(
        default=16,
        metadata=about(
            "Number of images for the data-dependent initialisation",
            short_name="u",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    accumulate_steps: int = field(
        default=1,
        metadata=about(
            "Number of parts into which each GPU divides its batch. The parts are computed one "
            "after the other. This takes less memory and gives the same gradient; batch_size must "
            "be a multiple of this number",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    recompute: bool = field(
        default=False,
        metadata=about(
            "Compute the residual blocks a second time for their gradient. This takes less memory "
            "and more time",
            may_change=True,
        ),
    )
    dtype: str = field(
        default="float32",
        metadata=about(
            "Number format in which the network computes; weights, likelihood and optimizer are "
            "always float32",
            choices=("float32", "mixed_bfloat16"),
            may_change=True,
        ),
    )
    max_epochs: int = field(
        default=5000,
        metadata=about(
            "Total number of epochs to train",
            short_name="x",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    max_minutes: float | None = field(
        default=None,
        metadata=about(
            "Minutes to train, after which the run stops as it does after its last epoch; the "
            "steps of all its starts count, and the scoring of test images does not; default: no "
            "limit",
            bounds=[(">", 0)],
            may_change=True,
        ),
    )
    nr_gpu: int | None = field(
        default=None,
        metadata=about(
            "Number of GPUs of each machine to train on; default: all GPUs of the machine. With 0, "
            "or on a machine without a GPU, training runs on the CPU",
            short_name="g",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    peer_timeout: float = field(
        default=600.0,
        metadata=about(
            "Seconds that a worker waits for the other workers of TF_CONFIG before it gives up",
            bounds=[(">", 0)],
            may_change=True,
        ),
    )
    polyak_decay: float = field(
        default=0.9995,
        metadata=about(
            "Decay per step of the exponential average of the weights",
            bounds=[(">=", 0), ("<", 1)],
            may_change=True,
        ),
    )
    num_samples: int = field(
        default=1,
        metadata=about(
            "Number of batches of samples to write at every checkpoint; 0 writes no samples",
            short_name="ns",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    profile: str | None = field(
        default=None,
        metadata=about(
            "Range of steps of this process to profile for TensorBoard, such as 10-20",
            may_change=True,
        ),
    )
    seed: int = field(
        default=1,
        metadata=about(
            "Random seed",
            short_name="s",
            bounds=[(">=", 0), ("<=", 2**31 - 1)],
            may_change=True,
        ),
    )

    def __post_init__(self):
        """Checks each field, and the fields that depend on each other."""
        check_fields(self)
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"`batch_size` must be a multiple of `accumulate_steps`. Received: "
                f"batch_size={self.batch_size}, accumulate_steps={self.accumulate_steps}"
            )
        if self.profile is not None:
            self.profiled_steps()

    def profiled_steps(self):
        """The steps to profile, as a `range`. Step 1 is the first step of this process.

        Raises:
          ValueError: If `profile` is not a range of steps.
        """
        first, _, last = self.profile.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise ValueError(
                message(
                    "`profile` must be a range of steps, such as 10-20", "profile", self.profile
                )
            )
        return range(int(first), int(last) + 1)
