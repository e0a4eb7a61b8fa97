"""Write the table of docs/settings.md from the code, between its two marks; ``--check`` only compares."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from reconciler.cli.settings import show_value
from reconciler.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- settings: scripts/settings_table.py -->", "<!-- end of settings -->"


def table() -> str:
    """Return the table, one row a variable."""
    rows = ["| Variable | Default | What it does |", "|---|---|---|"]
    for name, info in Settings.model_fields.items():
        text = " ".join((info.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name.upper()}` | {_default(info.default)} | {text} |")
    return "\n".join(rows)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    text = show_value(value)
    return f"`{text}`" if text else ""


def main() -> int:
    """Renew or check the table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    fresh = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if fresh != text:
            print("docs/settings.md: the table is out of date; run: make docs", file=sys.stderr)
        return int(fresh != text)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
