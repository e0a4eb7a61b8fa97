"""The command line of the soak."""

from __future__ import annotations

import argparse
import logging
import random
import sys

import structlog

from tests.soak.run import Soak, Wrong, figures

#: Bytes by which memory may grow over the idle cycles: noise of the interpreter, less than a word for each cycle.
FLAT = 50_000


def main() -> int:
    """Run a soak as asked for; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random faults from a seed.")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--idle", type=int, default=1000, help="cycles afterwards in which nothing happens")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(f"soak: seed {asked.seed}, {asked.cycles} cycles, up to {asked.groups} groups", flush=True)  # noqa: T201 - a program
    soak = Soak(asked.seed, asked.groups, say=lambda line: print(line, flush=True))  # noqa: T201 - a program
    try:
        soak.run(asked.cycles)
        grown = soak.idle(asked.idle)
    except Wrong as wrong:
        print(wrong)  # noqa: T201 - a program
        return 1
    print(f"in order at the end; {figures(soak)}")  # noqa: T201 - a program
    print(f"{asked.idle} idle cycles: 0 writes, {grown} bytes more")  # noqa: T201 - a program
    return 0 if grown < FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
