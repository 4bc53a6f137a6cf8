"""Which option works on which path, and which test shows it?  ``option-table`` makes a table of docs/options.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from evidence import table_row
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TABLE = Path(__file__).resolve().parents[1] / "options.toml"
PATHS = {
    "oracle": "Oracle",
    "reference": "Reference path",
    "interpreter": "Kernels, interpreter",
    "gpu": "Kernels, GPU",
}


def cell(text: str) -> str:
    """Return what stands in the table for a cell: the test in small type, or the reason."""
    if text.startswith("no: "):
        return f"no: {text.removeprefix('no: ')}"
    file, test = text.split("::")
    return f":test-name:`{test}` ({file.rpartition('/')[2]})"


class OptionTable(SphinxDirective):
    """The table of options by path."""

    def run(self) -> list[nodes.Node]:
        """Return a list-table; the page is built again when the file changes."""
        self.env.note_dependency(str(TABLE))
        lines = [".. list-table::", "   :header-rows: 1", "   :class: options", "   :widths: 20 20 20 20 20", ""]
        lines += table_row(["Option", *PATHS.values()])
        for option in tomllib.loads(TABLE.read_text(encoding="utf-8"))["option"]:
            lines += table_row([option["title"], *(cell(option[path]) for path in PATHS)])
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(TABLE)), 0, container)
        return container.children


def test_name(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """Return the name of a test as words, so that a narrow column can break it."""
    words = text.removeprefix("test_").replace("_", " ")
    return [nodes.emphasis(rawtext, words)], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the role."""
    app.add_directive("option-table", OptionTable)
    app.add_role("test-name", test_name)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
