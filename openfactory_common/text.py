"""What other people typed, fit for a terminal, a log, a page and a table: the one place that decides it. Pure.

A group's name, an error of a server and a reason for a pause come from elsewhere. Raw control characters in them would
command the terminal (ESC), and marks of direction would show one name as another (U+202E).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

#: Printable by the letter of Unicode, and yet nothing is seen: fillers, joiners, selectors of variants.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]")
#: Letters of other scripts that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХасеіјорѕухԁѵΑΒΕΖΗΙΚΜΝΟΡΤΥΧονı",  # noqa: RUF001 - that is the point
    "ABESIJKMHOPCTYXaceijopsyxdvABEZHIKMNOPTYXovi",
)


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


def printable_lines(text: str) -> str:
    """Return a text of several lines in which only the ends of lines are left as they are."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str) -> str:
    r"""Return a JSON document with the same meaning in which all that is not printed is escaped (``\u202e``).

    Between a document's values there are only blanks, ends of lines and signs, so what is replaced stands in a string.
    """
    return "".join(char if char.isprintable() or char == "\n" else _json(char) for char in document)


def distinguish(names: Iterable[str]) -> Mapping[str, str]:
    r"""Return how a table shows each of these names, so that no two look alike.

    A name is itself, unless it would not be seen as it is: with blanks at an end or in a row, with what is not printed,
    or if it looks like another one of the table. Those are shown quoted, with escapes where only these tell.
    """
    every = set(names)
    looks = Counter(map(_look, every))
    return {name: _shown(name, alone=looks[_look(name)] == 1) for name in every}


def _shown(name: str, *, alone: bool) -> str:
    if not alone or not name.isprintable() or not _look(name):
        return _with_blanks(ascii(name))
    return name if name == " ".join(name.split()) else _with_blanks(repr(name))


def _with_blanks(quoted: str) -> str:
    """Show blanks in a row, of which a page shows one only."""
    return quoted.replace("  ", r"\x20\x20")


def _look(name: str) -> str:
    """Return what a reader sees of a name, whatever it is written with."""
    seen = unicodedata.normalize("NFKC", name).translate(_LOOKALIKES)
    return " ".join(_UNSEEN.sub("", "".join(char for char in seen if char.isprintable() or char.isspace())).split())


def _json(char: str) -> str:
    code = ord(char)
    if code < 0x10000:  # noqa: PLR2004 - the basic plane
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
