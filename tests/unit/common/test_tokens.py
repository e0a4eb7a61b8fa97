"""Tokens of a file: what one may have, and what happens while it changes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.tokens import TokenFile, bearer_token, read_tokens

OLD, NEW = "old-" + "a" * 40, "new-" + "b" * 40

NO_TOKEN = "token 1 has characters other than letters, digits, - . _ ~ + / and = at its end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one token."""
    path = tmp_path / "tokens"
    path.write_text(f"{OLD}\n")
    return path


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b"0123456789abcdef", ("0123456789abcdef",)),
        (f"{OLD}\n".encode(), (OLD,)),
        (f"\n  {OLD}\t\r\n\n{NEW}==\r\n".encode(), (OLD, f"{NEW}==")),
        (b"a.b-c_d~e+f/g012=", ("a.b-c_d~e+f/g012=",)),
        (f"{OLD}\n{OLD}\n".encode(), (OLD, OLD)),
    ],
)
def test_a_token_a_line(tmp_path: Path, content: bytes, tokens: tuple[str, ...]) -> None:
    """Blank lines and blanks around a token are none of it."""
    (tmp_path / "t").write_bytes(content)
    assert read_tokens(tmp_path / "t") == tokens


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is no token"),
        (b" \n\n", "there is no token"),
        (b"abc def", "token 1 has characters"),
        (f"{OLD}\nBearer:def".encode(), "token 2 has characters"),
        (b"# comment", "token 1 has characters"),
        (b"a=b", "token 1 has characters"),
        (b"\xef\xbb\xbfabc", "characters that no token has"),
        ("schlüssel".encode(), "characters that no token has"),
        (b"abc\x00", "token 1 has characters"),
        (b"abc", "token 1 has 3 characters: at least 16 are required"),
        (f"{OLD}\n0123456789abcd=\n".encode(), "token 2 has 15 characters: at least 16 are required"),
        (f"  {'a' * 15}  \n".encode(), "token 1 has 15 characters"),
        (b"a\n" * 40_000, "too large"),
    ],
)
def test_what_is_no_token(tmp_path: Path, content: bytes, words: str) -> None:
    """It is refused in words, which never repeat it."""
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        read_tokens(tmp_path / "t")
    assert "abc" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "nul"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """A read of a pipe would never return."""
    path = tmp_path / ("t\0" if kind == "nul" else "t")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(ValueError, match=r"file|directory"):
        read_tokens(path)


def test_any_token_is_accepted_and_the_first_is_sent(file: Path) -> None:
    """And nothing else: no part of one, none of another case, none with something after it."""
    file.write_text(f"{NEW}\n{OLD}\n")
    tokens = TokenFile(file, "X")
    assert tokens.header() == {"Authorization": f"Bearer {NEW}"}
    assert [tokens.accepts(one) for one in (NEW, OLD)] == [True, True]
    for other in ("", OLD[:-1], OLD + "x", OLD.upper(), f"{NEW}\n{OLD}", "ü", "\udcff"):
        assert not tokens.accepts(other), other


def test_a_file_that_changes_is_read_again(file: Path) -> None:
    """In place, replaced, and twice within one tick of the clock."""
    tokens = TokenFile(file, "X")
    for number in range(50):
        current = f"{NEW}-{number:02}"
        if number % 2:
            file.write_text(current)
        else:
            (file.parent / "next").write_text(current)
            (file.parent / "next").replace(file)
        assert tokens.accepts(current)
        assert not tokens.accepts(OLD)
    os.utime(file, (1, 1))
    assert tokens.accepts(current)


def test_while_it_cannot_be_used_the_last_good_ones_stay(file: Path) -> None:
    """Each reason is logged once, without a token; a good file after it is used at once."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    tokens = TokenFile(file, "X_FILE")
    assert tokens.accepts(OLD)
    with capture_logs() as lines:
        file.unlink()
        assert [tokens.accepts(OLD) for _ in range(3)] == [True] * 3
        file.write_text("half of\n")
        assert [tokens.accepts(OLD) for _ in range(3)] == [True] * 3
        file.write_text(f"{NEW}\n")
        assert tokens.accepts(NEW)
        assert not tokens.accepts(OLD)
        file.write_text("half of\n")
        assert tokens.accepts(NEW)
    reasons = ["No such file or directory", *[NO_TOKEN] * 2]
    assert [line["event"] for line in lines] == [f"X_FILE: {why}; the tokens of before stay in use" for why in reasons]
    assert OLD not in str(lines)
    assert "half of" not in str(lines)


def test_a_file_that_was_never_good_accepts_nothing(tmp_path: Path) -> None:
    """It protects all the same."""
    tokens = TokenFile(tmp_path / "missing", "X")
    assert not tokens.accepts("")
    assert tokens.header() == {}


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bearer abc"], "abc"),
        (["BEARER   abc "], "abc"),
        (["Bearer"], None),
        (["Bearer "], None),
        (["Bearerabc"], None),
        (["Bearer abc def"], None),
        (["Basic abc"], None),
        (["abc"], None),
        (["Bearer abc", "Bearer abc"], "abc"),
        (["Bearer abc", "Bearer def"], None),
        (["Bearer abc", ""], None),
    ],
)
def test_the_token_of_a_request(fields: list[str], token: str | None) -> None:
    """The scheme in any case; no token where two fields differ."""
    assert bearer_token(fields) == token
