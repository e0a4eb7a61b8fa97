"""What other people typed: one place escapes it, and names that look alike are told apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfactory_common.text import distinguish, printable, printable_json, printable_lines

ANY = st.text(st.characters(), max_size=30)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Weld", "Weld"),
        ("Schweißen 溶接", "Schweißen 溶接"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\u202edleW", r"\u202edleW"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2066x\u2069\u200b", r"\u2066x\u2069\u200b"),
        ("half \ud800", r"half \ud800"),
        ("\U0001f527", "\U0001f527"),
        ("a\x1b[0m\r", r"a\x1b[0m\r"),
        ("\u00a0\ufeff\x85", r"\xa0\ufeff\x85"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printed_is_escaped(raw: str, shown: str) -> None:
    """Control characters, marks of direction, and halves of surrogate pairs."""
    assert printable(raw) == shown


@given(ANY)
def test_a_safe_text_is_one_printable_line(raw: str) -> None:
    """Whatever it was; and a text that was one already is as it was."""
    assert printable(raw).isprintable()
    assert printable(printable(raw)) == printable(raw)
    assert all(line.isprintable() for line in printable_lines(raw).split("\n"))


@given(st.dictionaries(ANY.map(lambda text: text.encode("utf-8", "replace").decode()), ANY))
def test_a_safe_document_means_the_same(document: dict[str, str]) -> None:
    """JSON has its own escapes, so nothing raw is left and every value is as it was."""
    text = printable_json(json.dumps(document, indent=2, ensure_ascii=False))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert json.loads(text) == document


@pytest.mark.parametrize(
    "names",
    [
        ("Weld", "Weld "),
        (" Weld", "Weld"),
        ("A B", "A  B"),
        ("A B", "A\N{NO-BREAK SPACE}B"),
        ("Weld", "We\N{ZERO WIDTH SPACE}ld"),
        ("Weld", "W\N{CYRILLIC SMALL LETTER IE}ld"),
        ("Caf\N{LATIN SMALL LETTER E WITH ACUTE}", "Cafe\N{COMBINING ACUTE ACCENT}"),
        ("Weld", "\N{RIGHT-TO-LEFT OVERRIDE}Weld"),
        ("Weld", "\N{FULLWIDTH LATIN CAPITAL LETTER W}eld"),
        ("", "\N{HANGUL FILLER}"),
        ("A\N{ZERO WIDTH SPACE}", "A\N{ZERO WIDTH JOINER}"),
        ("A\\x1b", "A\x1b"),
    ],
)
def test_names_that_look_alike_are_shown_quoted(names: tuple[str, str]) -> None:
    """Each of the pair is shown in another way, printable, and at least one of them in quotes."""
    shown = distinguish(names)
    assert len(set(shown.values())) == 2
    assert all(text.isprintable() for text in shown.values())
    assert any(text.startswith(("'", '"')) for text in shown.values())
    tidy = {" ".join(text.split()) for text in shown.values()}
    assert len(tidy) == 2, "blanks alone do not tell them apart"


def test_plain_names_are_shown_as_they_are() -> None:
    """Two that differ in case can be told apart; other scripts are no reason for quotes."""
    names = ("Weld", "weld", "CNC-01", "Line 7", "溶接", "Сварка", "O'Brien")
    assert distinguish(names) == {name: name for name in names}


@given(st.lists(ANY, max_size=6))
def test_no_two_names_are_shown_alike(names: list[str]) -> None:
    """Whatever they are."""
    shown = distinguish(names)
    assert len(set(shown.values())) == len(set(names))
