"""The controller stays one screen of decisions: what it is made of is counted."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from reconciler.control import controller

MOST_IMPORTS = 10


def imported(path: Path) -> set[str]:
    """Return the modules of ours that a file imports; a name that is a module counts as that module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if _is_module(name)} or {node.module}
    return {name for name in found if name.split(".")[0] in ("reconciler", "openfactory_common")}


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent is a module, not a package
        return False


def test_the_controller_imports_at_most_ten_modules_of_ours() -> None:
    """A new responsibility belongs into one of them, or replaces one."""
    found = imported(Path(controller.__file__))
    assert "reconciler.planning.guards" in found, "a module that is imported from its package is counted"
    assert len(found) <= MOST_IMPORTS, sorted(found)


def test_a_cycle_reads_from_top_to_bottom() -> None:
    """Observe, survey, guards, plan, apply: the steps are called in this order, and defined in it."""
    tree = ast.parse(Path(controller.__file__).read_text())
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = {node.name: node for node in kind.body if isinstance(node, ast.FunctionDef)}
    steps = ["_survey", "_judge", "plan", "_apply"]
    calls = [node for node in ast.walk(methods["_reconcile"]) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    called = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in steps]
    assert called == steps
    assert [name for name in methods if name in steps] == steps
