"""How the documentation is built: `make docs`."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from operators import write  # noqa: E402

project = "Axonal"
author = "The Axonal maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Axonal"
html_copy_source = False
myst_heading_anchors = 3
autodoc_typehints = "none"  # signatures show them
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
default_role = "code"  # `name` in a docstring is code
napoleon_google_docstring = True
napoleon_numpy_docstring = False

write(ROOT / "docs" / "operators.md")


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Note):$")


def as_restructured_text(lines: list[str]) -> Iterator[str]:
    """Docstrings are plain text: equations are set as they stand, and signs mean themselves."""
    section = literal = False
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith(" "):
            section, literal = bool(SECTION.match(line)), False
        elif line and not section and not literal and not before:
            literal = True
            yield from ("::", "")
        yield line if literal else re.sub(r"(?<!`)([|*])|(?<=\w)_(?!\w)", r"\\\g<0>", line)


def setup(app) -> None:
    """Before napoleon reads the sections of a docstring."""

    def process(app, what, name, obj, options, lines: list[str]) -> None:
        lines[:] = as_restructured_text(lines)

    app.connect("autodoc-process-docstring", process, priority=400)
