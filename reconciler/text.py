"""Text that others typed, made safe to show: one place for every log, terminal and document."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` with each character that is not plain text as an escape, e.g. ``\x1b`` or ``\u202e``.

    Control characters drive terminals and add lines to logs; characters that change the direction of writing make a
    name look like another one. Spaces other than the ordinary one are escaped as well. ``keep`` names exceptions.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if short is not None:
        return short
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
