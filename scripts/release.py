"""Make a release from the last commit: `make release VERSION=1.2.3` calls it. Standard library and tools of the venv.

It checks the version, the changelog and the tree, builds wheel, source distribution, bill of materials (CycloneDX) and
images, proves that the wheel installs and runs, and tags the commit. The files are in build/release/files, the text of
the release is build/release/notes.md. Only ``--push`` leaves this machine: it pushes the tag and the images.
``--dry-run`` does everything but tag and pushes, with the version that the code has, and only tells what a release of
this tree still needs; CI runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from reconciler import __version__

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "release"
FILES = OUT / "files"
SOURCE = OUT / "source"
BIN = Path(sys.executable).parent
#: The folders that the wheel has, with every file in them.
PACKAGES = ("openfactory_common", "group_service", "reconciler", "routing_layer", "state_api")
#: Images that are released, by their variable in the output of scripts/images.sh.
IMAGES = {
    "RECONCILER_IMAGE": "reconciler",
    "ROUTING_LAYER_IMAGE": "routing-layer",
    "GROUP_SERVICE_IMAGE": "group-service",
    "STATE_API_IMAGE": "state-api",
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a program and return what it printed; end here with its error if it fails."""
    program = [str(part) for part in command]
    done = subprocess.run(program, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - our own tools
    if done.returncode:
        sys.exit(f"release: {' '.join(program[:4])} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout.strip()


def git(*arguments: str) -> str:
    """Run git in the checkout."""
    return run("git", "-C", ROOT, *arguments)


def say(text: str) -> None:
    """Print progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def section(changelog: str, version: str) -> tuple[str, str] | None:
    """Return the date of a version, as its heading has it, and the text below; None without a heading."""
    found = re.search(rf"^## {re.escape(version)} - (\S+)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return (found[1], found[2].strip()) if found else None


def problems(version: str) -> list[str]:
    """Return what stands against a release of this tree, a line each with what to do."""
    found = []
    if not _VERSION.fullmatch(version):
        found.append(f"VERSION={version!r} is not of the form 1.2.3")
    elif version != __version__:
        found.append(f"VERSION={version}, but the code has {__version__}: set __version__")
    changes = section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if changes is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", changes[0]) or not changes[1]:
        found.append(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD' with text: write it")
    if changed := git("status", "--porcelain"):
        found.append(f"files are not committed: commit or remove them\n{changed}")
    tag = f"v{version}"
    if git("tag", "--list", tag) and git("rev-list", "-n", "1", tag) != git("rev-parse", "HEAD"):
        found.append(f"tag {tag} is on another commit: raise the version")
    return found


def differences(names: set[str], source: Path) -> list[str]:
    """Return where a wheel's files are not those of the packages in a source tree."""
    wanted = {
        str(path.relative_to(source))
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    found = {name for name in names if ".dist-info/" not in name}
    return [f"the wheel lacks {name}: see package-data in pyproject.toml" for name in sorted(wanted - found)] + [
        f"the wheel has {name}, which belongs to none of {', '.join(PACKAGES)}" for name in sorted(found - wanted)
    ]


def build(version: str) -> None:
    """Build wheel and source distribution from the last commit, install the wheel, and run its programs."""
    # Archives and the bill of materials get the time of the commit: the same commit makes the same files.
    os.environ["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct")
    shutil.rmtree(OUT, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    run("git", "archive", "--output", OUT / "source.tar", "HEAD")
    run("tar", "-xf", OUT / "source.tar", "-C", SOURCE)
    say("building wheel and source distribution")
    run(BIN / "python", "-m", "build", "--no-isolation", "--outdir", FILES, SOURCE)
    [wheel] = FILES.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        if wrong := differences(set(archive.namelist()), SOURCE):
            sys.exit("\n".join(f"release: {line}" for line in wrong))
    say("installing it")
    environment = OUT / "environment"
    venv.create(environment, symlinks=True)
    run("make", "wheels")
    pip = (BIN / "pip", "--python", environment / "bin" / "python", "install", "--no-index")
    run(*pip, "--find-links", ROOT / "build" / "wheels", wheel)
    for program in ("reconciler", "routing-layer"):
        if version not in (said := run(environment / "bin" / program, "--version", cwd=OUT)):
            sys.exit(f"release: {program} --version says {said!r}, not {version}")
    run(environment / "bin" / "reconciler", "schema", "plan", cwd=OUT)
    say("writing the bill of materials")
    bill = FILES / f"openfactory-routing-layer-{version}.cdx.json"
    about = ("--pyproject", SOURCE / "pyproject.toml", "--output-reproducible")
    run(BIN / "cyclonedx-py", "environment", *about, "-o", bill, environment / "bin" / "python")
    document = json.loads(bill.read_text(encoding="utf-8"))
    document["metadata"]["component"]["version"] = version  # which pyproject.toml does not have: the code does
    bill.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(FILES.iterdir())]
    (FILES / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def images() -> dict[str, str]:
    """Build the images that are not there yet; return each by its released name."""
    say("building the images")
    lines = run(ROOT / "scripts" / "images.sh").splitlines()
    made = dict(line.split("=", 1) for line in lines if "=" in line)
    return {name: made[variable] for variable, name in IMAGES.items()}


def publish(version: str, registry: str, made: dict[str, str], *, push: bool) -> None:
    """Tag the commit and the images, push them if that is asked for, and write the text of the release."""
    tag = f"v{version}"
    if not git("tag", "--list", tag):
        git("tag", "--annotate", "--message", f"Version {version}", tag)
    if push:
        git("push", "origin", tag)
    notes = [(section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version) or ("", ""))[1], "", "Images:", ""]
    for name, image in made.items():
        released = f"{registry}/{name}:{version}"
        run("docker", "tag", image, released)
        if push:
            run("docker", "push", released)
            released = run("docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", released)
        notes.append(f"- `{released}`")
    (OUT / "notes.md").write_text("\n".join([*notes, ""]), encoding="utf-8")


def main() -> int:
    """Release, or try it."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("version", nargs="?", default=__version__)
    parser.add_argument(
        "--registry", default="openfactory", help="where the images belong, e.g. registry.example/group"
    )
    parser.add_argument("--push", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    against = problems(options.version)
    base = run(ROOT / "scripts" / "base_image.sh")
    if base.startswith("openfactory/base:"):
        against.append(f"images would be built on {base}, which is for development: set BASE=python:3.11-slim")
    for line in against:
        print(f"release: {line}", file=sys.stderr)
    if against and not options.dry_run:
        return 1
    if not options.dry_run:
        say("make lint")
        run("make", "lint")
    build(options.version)
    made = images()
    if not options.dry_run:
        publish(options.version, options.registry, made, push=options.push)
    for path in sorted(FILES.iterdir()):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
