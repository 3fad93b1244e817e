"""A run on disk, and what makes it."""
