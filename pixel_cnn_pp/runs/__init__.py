"""Trains a model, and writes and reads the directory of the run.

loop.py         the training of a run, epoch after epoch
epoch.py        the progress, losses and speed of one epoch
backend.py      the trainer and the devices of the library that Keras computes with
trainer.py      a model with its optimizer: one training step, one evaluation
jax_trainer.py  the same on JAX
vectors.py      all weights as one vector, for the steps on JAX
optimizers.py   Adamax, Adam, RMSProp, the learning rate
devices.py      GPUs, CPU, several machines
jax_devices.py  the devices of one machine, on JAX
checkpoints.py  the files of a run
stored.py       the checkpoints on the disk, and what their files hold
locks.py        one process at a time writes to a run
samples.py      the pictures that are drawn at a checkpoint
monitoring.py   TensorBoard
stopping.py     signals and closed pipes
refusals.py     checks before training, and errors of one line
"""
