"""Which operations of TensorFlow a function spends its time in."""

import collections
import pathlib
import re
import tempfile


def profile(function, num_calls):
    """The operations of a function by their types, as TensorFlow's own profiler sees them.

    The time of an operation does not include the operations that it calls. Several may run at one
    time, so their sum may be longer than the call.

    Args:
      function: Function without arguments.
      num_calls: How often to call it.

    Returns:
      List of [type, seconds a call, number a call], the longest first. Operations compiled by XLA
      have "XLA" before their type.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as log_dir:
        tf.profiler.experimental.start(log_dir)
        for _ in range(num_calls):
            function()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(log_dir).glob("**/*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for kind, self_ps in of_thread(plane, line):
                seconds[kind] += self_ps / 1e12 / num_calls
                counts[kind] += 1 / num_calls
    return [[kind, total, counts[kind]] for kind, total in seconds.most_common()]


def of_thread(plane, line):
    """Pairs [type, its own picoseconds] of the operations of one thread."""
    found, enclosing = [], []
    # If two start together, the longer one encloses the other.
    for event in sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps)):
        kind = _kind(plane, event)
        if kind is None:
            continue
        while enclosing and enclosing[-1][0] <= event.offset_ps:
            enclosing.pop()
        if enclosing:
            enclosing[-1][1][1] -= event.duration_ps
        found.append([kind, event.duration_ps])
        enclosing.append((event.offset_ps + event.duration_ps, found[-1]))
    return found


def _kind(plane, event):
    """The type of operation of an event; None if the event is no operation."""
    name = plane.event_metadata[event.metadata_id].name
    if any(plane.stat_metadata[stat.metadata_id].name == "hlo_op" for stat in event.stats):
        return "XLA " + re.sub(r"[.\d]+$", "", name)
    found = re.fullmatch(r"[^\s:]+:(\w+)", name)
    return found and found[1]
