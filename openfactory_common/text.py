"""Escape text from elsewhere for a terminal, a log, a page and a table. Pure.

A group's name, an error of a server and a reason for a pause come from elsewhere. Raw control characters in them would
control the terminal (ESC), and direction marks would show one name as another (U+202E).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

#: Printable according to Unicode, and still invisible: fillers, joiners, variation selectors.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]")
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
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def printable_lines(text: str) -> str:
    """Escape each line of a text and keep the line ends."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str) -> str:
    r"""Return a JSON document with the same meaning in which everything that is not printable is escaped (``\u202e``).

    Between a document's values there are only blanks, line ends and punctuation, so everything replaced is in a string.
    """
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in document)


def list_some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def distinguish(names: Iterable[str]) -> Mapping[str, str]:
    r"""Return how a table shows each of these names, so that no two look alike.

    A name is shown as it is, unless that would mislead: it has blanks at an end or in a row, characters that are not
    printable, or it looks like another one of the table. Those are quoted, with escapes where only these differ.
    """
    every = set(names)
    looks = Counter(map(_find_look, every))
    shown = {}
    for name in every:
        look = _find_look(name)
        if looks[look] > 1 or not name.isprintable() or not look:
            shown[name] = ascii(name)
        else:
            shown[name] = name if name == " ".join(name.split()) else repr(name)
    # A name that is shown as it is may be the quoted form of another.
    while same := {name for name, count in Counter(shown.values()).items() if count > 1}:
        shown |= {name: ascii(name) for name in same}
    # Of blanks in a row a page shows only one.
    return {name: text.replace("  ", r"\x20\x20") for name, text in shown.items()}


def _find_look(name: str) -> str:
    """Return what a reader sees of a name: names that look alike have the same."""
    seen = unicodedata.normalize("NFKC", name).translate(_LOOKALIKES)
    return " ".join(_INVISIBLE.sub("", "".join(char for char in seen if char.isprintable() or char.isspace())).split())
