"""The differential test of responses for as long as one likes: the proxy's parser beside h11 and httptools.

``python -m tests.soak.responses [--seconds 600] [--seed N]``; seconds are of CPU. A finding ends the run with 1 and the
smallest bytes that show it. The end shows how often each reason of the table was the only one; one that never was has
to go.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings

from tests.unit.routing_layer.upstream.disagreements import H11, HTTPTOOLS, REASONS, judge
from tests.unit.routing_layer.upstream.response_bytes import PIECES, RESPONSES, cut
from tests.unit.routing_layer.upstream.response_readers import read_h11, read_httptools, read_ours

_BATCH = 2000


class Run:
    """One run.

    Attributes:
        examples: responses that were read so far, each by three readers.
        taken: those of them that ours took.
        alone: how often each reason explained a difference alone, by reader and name.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.examples = self.taken = 0
        self.alone: Counter[tuple[str, str]] = Counter()

    def batch(self, number: int) -> None:
        """Read a batch of responses, the same for the same number.

        Raises:
            AssertionError: a difference without a reason.
        """
        with asyncio.Runner() as runner:

            @seed(number)
            @settings(max_examples=_BATCH, database=None, deadline=None, suppress_health_check=list(HealthCheck))
            @given(RESPONSES, PIECES)
            def read(data: bytes, cuts: list[int]) -> None:
                self.examples += 1
                ours = runner.run(read_ours(cut(data, cuts)))
                self.taken += ours.complete
                for reader, theirs in ((H11, read_h11(data)), (HTTPTOOLS, read_httptools(data))):
                    difference, reasons = judge(data, ours, reader, theirs)
                    assert difference is None or reasons, f"{reader}: {difference}\n{ours}\n{theirs}"
                    if len(reasons) == 1:
                        self.alone[reader, reasons[0]] += 1

            read()


def main() -> int:
    """Run as long as asked for; return 1 at a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.responses", description="Three readers of responses.")
    parser.add_argument("--seconds", type=float, default=600, help="of CPU")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"responses: seed {asked.seed}, {asked.seconds:g} s of CPU", flush=True)  # noqa: T201 - a program
    run, number = Run(), asked.seed * 1_000_000
    while time.process_time() < asked.seconds:
        try:
            run.batch(number)
        except AssertionError as finding:
            notes = "\n".join(getattr(finding, "__notes__", []))
            print(f"a finding in batch {number}, after {run.examples} examples: {finding}\n{notes}")  # noqa: T201 - a program
            return 1
        number += 1
    print(f"{run.examples} examples, {run.taken} taken by ours, 0 findings")  # noqa: T201 - a program
    for reason in REASONS:
        for reader in sorted(reason.readers):
            print(f"  {run.alone[reader, reason.name]:6} {reader:10} {reason.name}")  # noqa: T201 - a program
    return 0


if __name__ == "__main__":
    sys.exit(main())
