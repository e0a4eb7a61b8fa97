"""Look for known vulnerabilities in the locked libraries; `make audit` calls it. Standard library only.

Says how many libraries the database knew: a mirror of the index without the database answers "not found" for each,
which must not read as "nothing is wrong". Exit codes: 0 nothing known, or nobody could be asked; 1 something is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements-runtime.lock", "requirements.lock")
_OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "-f", "json")


def verdict(lock: str, report: str) -> tuple[str, bool]:
    """Return what pip-audit's report means in words, and whether a vulnerability is known."""
    try:
        libraries: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return f"{lock}: not audited: no database of vulnerabilities could be asked", False
    known = [library for library in libraries if "skip_reason" not in library]
    if not known:
        return f"{lock}: not audited: the database knows none of the {len(libraries)} libraries", False
    lines = [
        f"{lock}: {library['name']} {library['version']}: {found['id']}, mended in "
        f"{', '.join(found.get('fix_versions') or ['no version yet'])}"
        for library in known
        for found in library.get("vulns", ())
    ]
    return "\n".join(lines or [f"{lock}: nothing known about {len(known)} of {len(libraries)} libraries"]), bool(lines)


def main(program: str) -> int:
    """Audit each lock file with the pip-audit at ``program``."""
    found = False
    for lock in LOCKS:
        command = [program, *_OPTIONS, "-r", str(ROOT / lock)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own venv's
        said, bad = verdict(lock, done.stdout)
        print(said)
        found = found or bad
    return int(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
