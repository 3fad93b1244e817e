"""How a model is trained, and what is written on the way."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config.fields import about, check_fields, message


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained, and what is written on the way.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> TrainingConfig(batch_size=32).learning_rate
      0.001
    """

    save_dir: str = field(
        default="save",
        metadata=about(
            "Directory of the run: checkpoints, configuration, samples",
            short_name="o",
            may_change=True,
        ),
    )
    save_interval: int = field(
        default=20,
        metadata=about(
            "Epochs between two checkpoints",
            short_name="t",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    save_minutes: float = field(
        default=30.0,
        metadata=about(
            "Minutes after which a checkpoint is written within an epoch too; 0 writes none there",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    keep: int = field(
        default=2,
        metadata=about(
            "Checkpoints to keep, the newest ones",
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
            "Whether to mirror half of the training images, others in every epoch",
            choices=("none", "flip"),
            may_change=True,
        ),
    )
    optimizer: str = field(
        default="adamax",
        metadata=about("The optimizer", choices=("adamax", "adam")),
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
            "Factor on the learning rate, applied at every step",
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
            "Images for the data-dependent initialisation",
            short_name="u",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    accumulate_steps: int = field(
        default=1,
        metadata=about(
            "Parts into which each GPU divides its batch, one after the other: less memory, the "
            "same gradient; batch_size must be a multiple of it",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    recompute: bool = field(
        default=False,
        metadata=about(
            "Compute residual blocks again for their gradient: less memory, more time",
            may_change=True,
        ),
    )
    dtype: str = field(
        default="float32",
        metadata=about(
            "What the network computes in; weights, likelihood and optimizer are float32",
            choices=("float32", "mixed_bfloat16"),
            may_change=True,
        ),
    )
    jit_compile: bool = field(
        default=False,
        metadata=about(
            "Compile the gradient by XLA; it takes minutes, for a GPU it can be worth it",
            may_change=True,
        ),
    )
    max_epochs: int = field(
        default=5000,
        metadata=about(
            "Epochs to train in total",
            short_name="x",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    nr_gpu: int | None = field(
        default=None,
        metadata=about(
            "GPUs of each machine to train on; default: all that it has. With 0, or on a machine "
            "without a GPU, training is on the CPU",
            short_name="g",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    peer_timeout: float = field(
        default=600.0,
        metadata=about(
            "Seconds after which a worker that misses others of TF_CONFIG gives up",
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
            "Batches of samples to write at every checkpoint; 0 writes none",
            short_name="ns",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    profile: str | None = field(
        default=None,
        metadata=about(
            "Steps of this process to profile for TensorBoard, such as 10-20",
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
        """Checks the fields, and those against each other that belong together."""
        check_fields(self)
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"`batch_size` must be a multiple of `accumulate_steps`. Received: "
                f"batch_size={self.batch_size}, accumulate_steps={self.accumulate_steps}"
            )
        if self.profile is not None:
            self.profiled_steps()

    def profiled_steps(self):
        """The steps to profile, counted from 1 in the process that trains: a range."""
        first, _, last = self.profile.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise ValueError(
                message(
                    "`profile` must be a range of steps, such as 10-20", "profile", self.profile
                )
            )
        return range(int(first), int(last) + 1)
