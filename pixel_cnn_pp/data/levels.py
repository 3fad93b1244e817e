"""Levels from floats."""

import numpy as np


def to_levels(images, num_levels, value_range):
    """Brings floats to the nearest of L levels: round((x - low) / (high - low) * (L - 1)).

    Args:
      images: Array of numbers in [low, high], of any shape. Booleans and whole numbers too.
      num_levels: L, whole number in [2, 65536].
      value_range: Pair (low, high): the values of level 0 and of level L - 1, such as (0, 1) or
        (-1, 1). It is never guessed.
    Returns:
      Integer array of the same shape in [0, L - 1]: uint8 for L <= 256, otherwise uint16.
    Raises:
      ValueError: If a value lies outside of the range or is not finite, or an argument is wrong.

    >>> to_levels([[0.0, 0.5, 1.0]], 256, (0, 1))
    array([[  0, 128, 255]], dtype=uint8)
    """
    is_whole = isinstance(num_levels, int | np.integer) and not isinstance(num_levels, bool)
    if not is_whole or not 2 <= num_levels <= 65536:
        raise ValueError(
            "`num_levels` must be a whole number in [2, 65536]. "
            f"Received: num_levels={num_levels!r}"
        )
    try:
        low, high = (float(limit) for limit in value_range)
        is_range = np.isfinite([low, high]).all() and low < high
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        raise ValueError(
            "`value_range` must be a pair of numbers, the lower first. "
            f"Received: value_range={value_range!r}"
        )
    try:
        values = np.asarray(images)
        values = values.astype(np.float64) if values.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        raise ValueError(f"`images` must be an array of numbers. Received: {type(images).__name__}")
    # NaN lies in no range.
    if values.size and not (low <= values.min() and values.max() <= high):
        raise ValueError(
            f"`images` must lie in [{low:g}, {high:g}]. "
            f"Received: values in [{values.min():g}, {values.max():g}]"
        )
    levels = np.floor((values - low) / (high - low) * (num_levels - 1) + 0.5)
    return levels.astype(np.uint8 if num_levels <= 256 else np.uint16)
