"""Variable substitution: `${name}` and `${name:-default}`, live only where a request brings variables.

ksqlDB replaces inside string literals too (there with quotes doubled); an unknown name without a default stays.
"""

from __future__ import annotations


def substitute(text: str, variables: dict[str, str]) -> str:
    """Replace every variable of a statement's text."""
    if not variables or "${" not in text:
        return text
    folded = {name.lower(): value for name, value in variables.items()}
    out: list[str] = []
    inside, at = False, 0
    while at < len(text):
        end = text.find("}", at) if text.startswith("${", at) else -1
        if end > 0:
            value = _value(text[at + 2 : end], folded)
            out.append(text[at : end + 1] if value is None else value.replace("'", "''") if inside else value)
            at = end + 1
            continue
        inside ^= text[at] == "'"
        out.append(text[at])
        at += 1
    return "".join(out)


def _value(inside: str, variables: dict[str, str]) -> str | None:
    name, separator, default = inside.partition(":-")
    return variables.get(name.lower(), default if separator else None)
