"""Trains a model, and writes and reads the directory of the run.

loop.py         the training of a run, epoch after epoch
epoch.py        the progress, losses and speed of one epoch
trainer.py      a model with its optimizer: one training step, one evaluation
optimizers.py   Adamax, Adam, the learning rate
devices.py      GPUs, CPU, several machines
checkpoints.py  the files of a run
samples.py      the pictures that are drawn at a checkpoint
monitoring.py   TensorBoard
stopping.py     Ctrl-C and SIGTERM
refusals.py     checks before training, and errors of one line
"""
