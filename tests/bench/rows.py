"""What benchmarks say to machines: one JSON object a line, one line for each tool in each round, appended to the file
that $DROVER_BENCH_ROWS names.

Fields: bench, part, tool, value, unit, and, with drover's own, bar and against. A bar is of drover's value, or, where
`against` names a tool, of drover's value divided by that tool's.
"""

import json
import os


def add(bench, part, tool, value, unit, bar=None, against=None):
    """Adds a line, if somebody reads them."""
    if file := os.environ.get("DROVER_BENCH_ROWS"):
        row = {"bench": bench, "part": part, "tool": tool, "value": value, "unit": unit}
        row |= {key: known for key, known in [("bar", bar), ("against", against)] if known is not None}
        with open(file, "a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")


def read(file):
    """All lines of a file."""
    with open(file, encoding="utf-8") as rows:
        return [json.loads(line) for line in rows]
