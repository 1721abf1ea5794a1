"""``python -m tests.simulation SEED [COUNT]``: run seeds and tell what happened."""

from __future__ import annotations

import sys
import time
from collections import Counter

from orchestrator.workflow import determinism
from tests.simulation.world import World


def main() -> int:
    """Run ``COUNT`` seeds from ``SEED`` on."""
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    determinism.install()
    failed = 0
    visited: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed)
        begin = time.perf_counter()
        try:
            world.run()
            words = "ok"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed += 1
            words = f"{type(error).__name__}: {error}"
            if count == 1:
                print("\n".join(world.notes))
                print(world.counts, world.cluster.counts)
                raise
        visited.update(world.visited)
        print(f"{seed} {time.perf_counter() - begin:.1f} s {dict(world.counts)} {words}", flush=True)
    print(f"{count - failed} passed, {failed} failed; crashed at {dict(visited)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
