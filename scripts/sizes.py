"""Print how large each package is, and fail where one is above its limit; `make lint` calls it. Standard library only.

A line counts if it has code: no blank lines, no comments, no docstrings.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Package:
    """What is counted together.

    Attributes:
        name: as the table shows it.
        folders: where its files are, below the root of the repository; one that does not exist has none.
        without: folders in there that are counted elsewhere.
        limit: code lines above which the check fails; None: only shown. It is lowered when the package gets smaller.
        goal: the budget that the limit comes down to.
    """

    name: str
    folders: tuple[str, ...]
    without: tuple[str, ...] = ()
    limit: int | None = None
    goal: int | None = None


PACKAGES = (
    Package("operator", ("reconciler",), without=("reconciler/testing",), limit=15_000, goal=7_500),
    Package("conformance kit", ("reconciler/testing",), limit=430),
    Package("common", ("openfactory_common",), limit=1_965),
    Package("routing layer", ("routing_layer",), limit=4_360, goal=2_200),
    Package("services", ("group_service", "state_api"), limit=1_610, goal=1_500),
    Package("demo", ("demo",), limit=4_700, goal=4_700),
    Package("tests", ("tests",)),
)
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def measure(source: str) -> tuple[int, list[int]]:
    """Return the number of code lines, and the length of each function from its `def` to its end."""
    tree = ast.parse(source)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):  # a text that stands alone documents a module, a class, a function or an attribute
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    functions = [node for node in ast.walk(tree) if isinstance(node, _Function)]
    return len(lines), [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]


def files(package: Package) -> list[Path]:
    """Return the Python files of a package."""
    without = [ROOT / folder for folder in package.without]
    found = [path for folder in package.folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not any(path.is_relative_to(folder) for folder in without)]


def main() -> int:
    """Print the table; return 1 if a package is above its limit."""
    head = ("package", "files", "lines", "limit", "goal", "functions/1000", "median function", "p90 function")
    print(f"{head[0]:16}", *head[1:], sep="  ")
    above = []
    for package in PACKAGES:
        measured = [measure(path.read_text(encoding="utf-8")) for path in files(package)]
        lines = sum(count for count, _ in measured)
        lengths = sorted(length for _, functions in measured for length in functions)
        if not lengths:
            continue
        cells = (len(measured), lines, package.limit or "", package.goal or "", round(1000 * len(lengths) / lines),
                 round(statistics.median(lengths)), lengths[len(lengths) * 9 // 10])  # fmt: skip
        print(f"{package.name:16}", *(f"{c:>{len(t)}}" for c, t in zip(cells, head[1:], strict=True)), sep="  ")
        if package.limit is not None and lines > package.limit:
            above.append(f"{package.name}: {lines} code lines, {lines - package.limit} above its limit")
    for line in above:
        print(line)
    return int(bool(above))


if __name__ == "__main__":
    raise SystemExit(main())
