"""Which claims are there, and what are their proofs?

The directive ``claims`` lists proofs/ledger.toml with code, tests and proof of each entry. The page
``paper_proofs`` is the text of proofs/README.md, with a label before each proof, and the page ``coq`` shows the files
of the development.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import ledger  # tests/ledger.py, which the test of the ledger uses as well
import theorems
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]

STATUS = {
    "proved for reals": "machine checked, real numbers",
    "proved for floats": "machine checked, with rounding",
    "paper": "proved on paper",
    "counterexample": "counterexample, machine checked",
    "assumed": "assumed",
}


class Claims(SphinxDirective):
    """Write a table of all claims, then one entry for each."""

    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        for file in ("proofs/ledger.toml", "tests/ledger.py"):
            self.env.note_dependency(str(ROOT / file))
        entries = ledger.claims(ROOT)
        code, tests = ledger.code_sites(ROOT), ledger.test_sites(ROOT)
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 30 20 25 25", ""]
        lines += ["   * - claim", "     - status", "     - code", "     - tests"]
        for claim in entries:
            lines += [
                f"   * - :ref:`{claim.name} <claim-{claim.name}>`",
                f"     - {STATUS[claim.status]}",
                f"     - {len(code.get(claim.name, ()))}",
                f"     - {len(tests.get(claim.name, ()))}",
            ]
        for claim in entries:
            proof = STATUS[claim.status]
            if claim.theorem:
                stage = claim.theorem.split(".")[0]
                self.env.note_dependency(str(ROOT / "proofs" / f"{stage}.v"))
                proof += f", in :ref:`{stage}.v <coq-{stage}>`"
            lines += [
                "",
                f".. _claim-{claim.name}:",
                "",
                f".. rubric:: {claim.name}",
                "",
                _prose(claim.statement),
            ]
            lines += ["", ".. rst-class:: claim", ""]
            lines += [f"- Status: {proof} (:ref:`read it <proof-{claim.name}>`)"]
            lines += [f"- Code: {_files(code.get(claim.name, set()))}"]
            lines += [f"- Tests: {_files(tests.get(claim.name, set()))}"]
            if claim.theorem:
                lines += ["", ".. code-block:: coq", ""]
                lines += [f"   {line}" for line in theorems.shown(ROOT, claim.theorem).splitlines()]
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(ROOT / "proofs" / "ledger.toml")), 0, container)
        return container.children


def _prose(statement: str) -> str:
    """Return the statement with the characters escaped that have a meaning in reStructuredText."""
    return "".join(f"\\{c}" if c in "*`_|\\" else c for c in statement)


def _files(names: set[str]) -> str:
    return ", ".join(f"``{name}``" for name in sorted(names)) or "none yet"


def proofs_text(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the page ``paper_proofs`` its text."""
    if docname != "paper_proofs":
        return
    app.env.note_dependency(str(ROOT / "proofs" / "README.md"), docname=docname)
    text = (ROOT / "proofs" / "README.md").read_text(encoding="utf-8")
    text = text.replace("# Proofs\n", "# Paper proofs\n", 1).replace(
        "[`ledger.toml`](ledger.toml)", "`proofs/ledger.toml`"
    )
    text = text.replace("(SOUNDNESS.md)", "(soundness.md)")
    source[0] = re.sub(r"^### (\w+)$", r"(proof-\1)=\n### \1", text, flags=re.MULTILINE)


def coq_text(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the page ``coq`` the files of the development, in the order in which they build."""
    if docname != "coq":
        return
    for stage in theorems.stages(ROOT):
        app.env.note_dependency(str(ROOT / "proofs" / f"{stage}.v"), docname=docname)
        block = f"```{{literalinclude}} ../proofs/{stage}.v\n:language: coq\n```\n"
        source[0] += f"\n(coq-{stage})=\n## {stage}.v\n\n{block}"


def link_lemmas(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the names after ``Lemma:`` in a docstring into links to their claims."""
    known = {claim.name for claim in ledger.claims(ROOT)}

    def linked(mention: re.Match[str]) -> str:
        return re.sub(
            r"\w+",
            lambda word: f":ref:`{word[0]} <claim-{word[0]}>`" if word[0] in known else word[0],
            mention[0].replace("`", ""),
        )

    lines[:] = ledger.MENTION.sub(linked, "\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("claims", Claims)
    app.connect("source-read", proofs_text)
    app.connect("source-read", coq_text)
    app.connect("autodoc-process-docstring", link_lemmas)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
