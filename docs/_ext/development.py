"""How does one read the development in Coq?  ``coq`` shows a file of it, with an anchor at every statement.

The label of a definition, lemma or theorem is ``coq-<stage>-<name>``. No Coq is needed.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import theorems  # tests/theorems.py
from claims import ROOT, code_block, folded, prose
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDED = 3  # a proof that has more line ends than this, or as many, is folded


def label(stage: str, name: str) -> str:
    """Return the label of a statement."""
    return f"coq-{stage}-{name}".replace("'", "-prime")


def comment(text: str) -> str:
    """Return the words of a comment; what coqdoc sets as code, in brackets, becomes code."""
    words = " ".join(text.removeprefix("(*").removesuffix("*)").strip("* ").split())
    pieces = re.split(r"\[([a-z][^\]]*)\]", words)
    return "".join(f"``{piece}``" if number % 2 else prose(piece) for number, piece in enumerate(pieces))


def lines(stage: str) -> list[str]:
    """Return a file of the development as reStructuredText."""
    found = []
    for block in theorems.blocks(ROOT, stage):
        if block.kind == "heading":
            title = comment(block.text)
            found += ["", title, "-" * len(title), ""]
            continue
        if block.kind == "comment":
            found += ["", comment(block.text), ""]
            continue
        if block.name:
            found += ["", f".. _{label(stage, block.name)}:", ""]
        if block.proof.count("\n") < FOLDED:
            found += code_block(f"{block.text}\n{block.proof}".strip())
        else:
            found += [*code_block(block.text), *folded("Proof", code_block(block.proof))]
    return found


class Development(SphinxDirective):
    """One file of the development."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return its statements and their proofs; the page is built again when the file changes."""
        (stage,) = self.arguments
        for file in (f"proofs/{stage}.v", "tests/theorems.py"):
            self.env.note_dependency(str(ROOT / file))
        return self.parse_text_to_nodes("\n".join(lines(stage)), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("coq", Development)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
