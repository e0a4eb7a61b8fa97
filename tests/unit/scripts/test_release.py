"""What stops a release, and how a wheel is compared with the tree (`make release-dry-run` builds a real one)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import release

VERSION = release.__version__
DATED = f"# Changelog\n\n## {VERSION} - 2026-11-28\n\n- A change.\n\n## 0.0.1 - 2026-01-01\n\n- Another.\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, ready to be released."""
    monkeypatch.setattr(release, "ROOT", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(DATED)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(where: Path, *arguments: str) -> None:
    """Run git as an author who is configured nowhere."""
    author = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run(["git", "-C", str(where), *author, *arguments], check=True, capture_output=True)


def commit(where: Path) -> None:
    """Commit everything."""
    git(where, "add", "-A")
    git(where, "commit", "-q", "--allow-empty", "-m", "A commit")


def test_a_clean_dated_tree_can_be_released(checkout: Path) -> None:
    """Also a second time, when the tag is there: a failed push is repeated with the same command."""
    assert release.problems(VERSION) == []
    git(checkout, "tag", f"v{VERSION}")
    assert release.problems(VERSION) == []


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("1.2", "'1.2' is not of the form"),
        ("v1.2.3", "is not of the form"),
        ("", "is not of the form"),
        ("99.0.0", f"code has {VERSION}"),
    ],
)
@pytest.mark.usefixtures("checkout")
def test_the_version_is_the_codes(version: str, says: str) -> None:
    """Another version than the code's, or no version, is refused first."""
    assert says in release.problems(version)[0]


@pytest.mark.parametrize(
    "changelog", [DATED.replace("2026-11-28", "unreleased"), DATED.replace("- A change.", ""), "# Changelog\n"]
)
def test_the_changelog_has_a_dated_section_with_text(checkout: Path, changelog: str) -> None:
    """A section that is not dated, is empty or is missing stops the release."""
    (checkout / "CHANGELOG.md").write_text(changelog)
    commit(checkout)
    [problem] = release.problems(VERSION)
    assert f"## {VERSION} - YYYY-MM-DD" in problem


def test_what_is_not_committed_is_named(checkout: Path) -> None:
    """A changed or new file would not be in the release."""
    (checkout / "forgotten.py").touch()
    [problem] = release.problems(VERSION)
    assert "forgotten.py" in problem


def test_a_tag_does_not_move(checkout: Path) -> None:
    """A version that is tagged on another commit is released already."""
    git(checkout, "tag", f"v{VERSION}")
    commit(checkout)
    [problem] = release.problems(VERSION)
    assert "on another commit" in problem


def test_the_notes_are_the_versions_own_section() -> None:
    """The text ends where the next version begins."""
    assert release.section(DATED, VERSION) == ("2026-11-28", "- A change.")
    assert release.section(DATED, "0.0.1") == ("2026-01-01", "- Another.")


def test_a_wheel_has_every_file_of_the_packages_and_no_other(tmp_path: Path) -> None:
    """A template that package-data forgets and a folder that belongs to checkouts are both found."""
    for name in ("reconciler/app.py", "reconciler/web/page.html", "demo/server.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    whole = {"reconciler/app.py", "reconciler/web/page.html", "project-1.dist-info/METADATA"}
    assert release.differences(whole, tmp_path) == []
    [lacks, has] = release.differences((whole - {"reconciler/web/page.html"}) | {"demo/server.py"}, tmp_path)
    assert "lacks reconciler/web/page.html" in lacks
    assert "has demo/server.py" in has
