"""Benchmarks that measure in the process of the test, and the tables that they print."""

import functools
import json
import re

from processes import run_script

from benchmarks import measure

ROUNDING = 0.011


def table(lines):
    """The rows of a Markdown table, {column: text} each."""
    header, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert len(rule) == len(header) and all(set(cell) <= set("-:") for cell in rule)
    return [dict(zip(header, row, strict=True)) for row in rows]


def tables(printed):
    """All tables of a text, in order."""
    return [table(block.splitlines()) for block in re.findall(r"(?:^\|.*\n)+", printed, re.M)]


def number(text):
    assert re.fullmatch(r"\d+(\.\d+)?", text), text
    return float(text)


def shares(text):
    """Rate, percentage, rate of the machine."""
    found = re.fullmatch(r"(\S+) \((\S+)% of (\S+)\)", text)
    return [number(part) for part in found.groups()]


def measure_here(script, case):
    """`measure.in_new_process` in this process."""
    done = run_script(script, "--case", json.dumps(case))
    return json.loads(done.stdout.splitlines()[-1])


def start_here(patch):
    """Lets benchmarks measure in this process, and the machine with small matrices.

    Args:
      patch: `pytest.MonkeyPatch`.
    """
    rate = functools.partial(measure.matrix_product_rate, side=64)
    patch.setattr(measure, "matrix_product_rate", rate)
    patch.setattr(measure, "in_new_process", measure_here)
