"""Says for each recorded reply of a server what the client reads it as.

    python -m tests.integration.ksqldb.classify FILE.jsonl

Exits with 1 if any case has no reading of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openfactory_common.errors import KsqlError
from tests.integration.ksqldb.answers import UnknownAnswerError, answer
from tests.integration.ksqldb.corpus import Case, read_cases

UNKNOWN = "unknown"


def class_of(case: Case) -> str:
    """Return the name of the value or of the leaf of the error tree that a case is read as, or ``unknown``."""
    try:
        value = answer(case)
    except KsqlError as error:
        return UNKNOWN if type(error) is KsqlError else type(error).__name__
    except (UnknownAnswerError, ValueError):
        return UNKNOWN
    if isinstance(value, tuple):
        return "+".join(entity.kind for entity in value) or "nothing"
    return type(value).__name__


def main(arguments: list[str]) -> int:
    """Classify the file named by the one argument."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.integration.ksqldb.classify FILE.jsonl\n")
        return 2
    unknown = total = 0
    for case in read_cases(Path(arguments[0])):
        kind = class_of(case)
        total += 1
        unknown += kind == UNKNOWN
        sys.stdout.write(f"{case.name}\t{case.status or '-'}\t{kind}\n")
    sys.stderr.write(f"{total} cases, {unknown} unknown\n")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
