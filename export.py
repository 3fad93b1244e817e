"""Writes a trained run as a SavedModel for TensorFlow Serving: python export.py save/digits OUT."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"export.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

import pathlib
import time

from absl import flags

from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged weights, or those of the last step")
flags.DEFINE_bool(
    "jit_compile",
    True,
    "Let XLA compile the sampler on the server: it is faster, and draws the images of sample.py to "
    "the last bit. Without XLA every server can draw, also TensorFlow Serving on GPUs",
)
flags.DEFINE_bool("overwrite", False, "Replace the SavedModel that is already in OUT")


def main(run_dir, out):
    """Exports a run's newest checkpoint, and says how it is served."""
    from pixel_cnn_pp import export
    from pixel_cnn_pp.runs import checkpoints

    export.check_path(out, FLAGS.overwrite)
    model = checkpoints.load(run_dir, FLAGS.weights)
    start = time.perf_counter()
    export.export_saved_model(model, out, FLAGS.jit_compile, FLAGS.overwrite)
    seconds = time.perf_counter() - start

    path = pathlib.Path(out).absolute()
    megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    print(f"Wrote {out}: {megabytes:.1f} MB in {seconds:.0f} s, signatures as in docs/serving.md")
    if path.name.isdecimal():
        xla = " --xla_cpu_compilation_enabled" if FLAGS.jit_compile else ""
        print(
            f"To serve it: tensorflow_model_server --rest_api_port=8501 "
            f"--model_name={path.parent.name} --model_base_path={path.parent}{xla}"
        )
    else:
        print(
            "TensorFlow Serving looks for it in a directory that is named by the number of a "
            f"version, such as {pathlib.Path(out) / '1'}"
        )


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR", "OUT"])
