"""The documentation site, built by Sphinx: `make docs`.

The source is the whole repository and not docs/ alone, so that a link between a page and any other file of the
repository is the same here and in a web view of the repository. A page is in the menu below, or the build fails.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from openfactory_common import __version__

#: The menu: what stands below a page, by captions.
menu = {
    "README": {
        "Use it": [
            "docs/demo",
            "docs/quickstart",
            "docs/operations",
            "docs/laptop",
            "docs/ci",
            "docs/migrate",
            "manifests/README",
        ],
        "How it behaves": [
            "docs/safety",
            "docs/security",
            "docs/high-availability",
            "docs/routing",
            "docs/group-service",
            "docs/ksqldb",
            "docs/critique",
        ],
        "Reference": ["docs/settings", "docs/cli", "docs/metrics", "docs/versions", "docs/schema/README"],
        "Extend it": ["docs/plugins", "examples/two_levels/README"],
        "Develop it": ["docs/architecture", "CONTRIBUTING", "docs/adr/README", "demo/ksqldb/README", "tests/README"],
        "Project": ["SECURITY", "CHANGELOG"],
    },
    "docs/adr/README": {"Decisions": ["docs/adr/0*"]},
}

project = "OpenFactory routing layer"
release = __version__
root_doc = "README"
include_patterns = ["*.md", *(f"{folder}/**.md" for folder in ("demo", "docs", "examples", "manifests", "tests"))]
extensions = ["myst_parser"]
myst_enable_extensions = ["html_image"]  # an image with a width, as the front page has one
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
html_copy_source = False
html_use_index = False
html_show_copyright = False


def add_menu(app: Sphinx, name: str, source: list[str]) -> None:
    """Append its part of the menu to a page; the repository's web view would show it as code."""
    for caption, pages in app.config.menu.get(name, {}).items():
        entries = "\n".join(f"/{page}" for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{entries}\n```\n"


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Give the front page the name that web servers look for."""
    if error is None and app.builder.format == "html":
        front = Path(app.outdir, "README.html")
        front.with_name("index.html").write_bytes(front.read_bytes())


def setup(app: Sphinx) -> None:
    """Connect both to the build."""
    app.add_config_value("menu", {}, "env")  # a change of it renews the pages that have a part of it
    app.connect("source-read", add_menu)
    app.connect("build-finished", add_index)
