"""``python -m bench [kafka] [CASE …]``: runs each case in a process of its own and prints a table.

Figures depend on the machine; compare those of one run with each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

from bench import kafka
from bench.cases import CASES, run

MANY = 8
"""Figures are written one below the other if there are as many."""


def main() -> int:
    """Run the named cases, or all."""
    if sys.argv[1:2] == ["kafka"]:
        return kafka.main(sys.argv[2:])
    if sys.argv[1:2] == ["--in-process"]:
        print(json.dumps(asyncio.run(run(sys.argv[2]))))
        return 0
    names = sys.argv[1:] or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"unknown case {unknown[0]!r}; known: {', '.join(CASES)}", file=sys.stderr)
        return 2
    for name in names:
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "--in-process", name],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        if ended.returncode:
            print(ended.stderr, file=sys.stderr)
            return 1
        figures = json.loads(ended.stdout.splitlines()[-1])
        words = [f"{key} {value:,.1f}" for key, value in figures.items()]
        between = "   " if len(words) < MANY else "\n    "
        print(f"{CASES[name][0]:<45} {between.join(words)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
