"""The models: each answers the questions of `base.AutoregressiveModel`."""
