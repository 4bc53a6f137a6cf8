"""Which claims are there, and what are their proofs?

The directive ``claims`` makes a table of proofs/ledger.toml and, with the name of a stage, a page: statement, reason
(proofs/REASONS.md), theorem, code and tests of each claim. The page ``paper_proofs`` is the text of proofs/README.md,
with a label before each proof.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import ledger  # tests/ledger.py, which the test of the ledger uses as well
import theorems
from docutils import nodes
from evidence import table_row
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[2]

STATUS = {
    "proved for reals": "machine checked, real numbers",
    "proved for floats": "machine checked, with rounding",
    "paper": "proved on paper",
    "counterexample": "counterexample, machine checked",
    "assumed": "assumed",
}


class source(nodes.Inline, nodes.TextElement):
    """The name of a source file, until it is known whether viewcode renders it."""


class Claims(SphinxDirective):
    """Write a table of all claims or, with the name of a stage, what there is to say about each claim of it."""

    optional_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the nodes; the page is built again when a file that it is made from changes."""
        files = ["proofs/ledger.toml", "proofs/REASONS.md", "tests/ledger.py", "tests/theorems.py"]
        files += [f"proofs/{stage}.v" for stage in self.arguments]
        for file in files:
            self.env.note_dependency(str(ROOT / file))
        lines = stage_page(self.arguments[0]) if self.arguments else overview()
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def overview() -> list[str]:
    """Return the table of all claims as reStructuredText."""
    code, tests = ledger.code_sites(ROOT), ledger.test_sites(ROOT)
    stages = {reason.name: reason.stage for reason in ledger.reasons(ROOT)}
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 34 18 26 11 11", ""]
    lines += table_row(["claim", "stage", "status", "code files", "tests"])
    for claim in ledger.claims(ROOT):
        lines += table_row(
            [
                f":ref:`{claim.name} <claim-{claim.name}>`",
                f":doc:`{stages[claim.name]} <proofs/{stages[claim.name]}>`",
                STATUS[claim.status],
                str(len(code.get(claim.name, ()))),
                str(len(tests.get(claim.name, ()))),
            ]
        )
    return lines


def stage_page(stage: str) -> list[str]:
    """Return the claims of a stage as reStructuredText: statement, reason, theorem, and where to find the rest."""
    entries = {claim.name: claim for claim in ledger.claims(ROOT)}
    code, tests = ledger.code_sites(ROOT), ledger.test_sites(ROOT)
    chosen = [reason for reason in ledger.reasons(ROOT) if reason.stage == stage]
    if not chosen:
        raise ValueError(f"proofs/REASONS.md has no claims under '## {stage}'")
    lines = [
        "The words of the statements are explained on the page :doc:`/proofs`. What follows a statement is the reason",
        "for it, not its proof.",
        "",
    ]
    for reason in chosen:
        claim = entries[reason.name]
        lines += ["", f".. _claim-{claim.name}:", "", claim.name, "-" * len(claim.name), ""]
        lines += [".. rst-class:: statement", "", prose(claim.statement), "", marked(reason.text, set(entries)), ""]
        if claim.theorem:
            lines += code_block(theorems.shown(ROOT, claim.theorem))
        lines += [".. rst-class:: claim", ""]
        lines += [f"- Status: {STATUS[claim.status]}"]
        if claim.theorem:
            lines += [f"- In Coq: :ref:`{claim.theorem} <coq-{claim.theorem.replace('.', '-')}>`, with its proof"]
        if claim.theorem and (ROOT / "proofs" / "steps" / f"{claim.theorem}.json").is_file():
            lines += [f"- With the goals shown: :ref:`step by step <steps-{claim.theorem.replace('.', '-')}>`"]
        lines += [f"- On paper: :ref:`proof of {claim.name} <proof-{claim.name}>`"]
        lines += [""]
        lines += listed("Code that relies on it", "source-file", sorted(code.get(claim.name, ())))
        lines += listed("Tests that carry its name", "literal", sorted(tests.get(claim.name, ())))
    return lines


def prose(statement: str) -> str:
    """Return the statement with the characters escaped that have a meaning in reStructuredText."""
    return "".join(f"\\{c}" if c in "*`_|\\" else c for c in statement)


def marked(text: str, known: set[str]) -> str:
    """Return a paragraph of Markdown as reStructuredText; its only mark is the backtick, which also links claims."""

    def code(word: str) -> str:
        return f":ref:`{word} <claim-{word}>`" if word in known else f"``{word}``"

    return "".join(code(piece) if number % 2 else prose(piece) for number, piece in enumerate(text.split("`")))


def code_block(text: str) -> list[str]:
    """Return lines of Coq as a block of reStructuredText."""
    return [".. code-block:: coq", "", *(f"   {line}" for line in text.splitlines()), ""]


def listed(heading: str, role: str, names: list[str]) -> list[str]:
    """Return a folded list of names."""
    items = ["", ".. rst-class:: claim", "", *(f"- :{role}:`{name}`" for name in names), ""]
    return folded(f"{heading}: {len(names)}", items) if names else []


def folded(summary: str, lines: list[str], is_open: bool = False) -> list[str]:
    """Return lines of reStructuredText that a reader unfolds, or folds if they are open."""
    before = f'   <details class="folded"{" open" if is_open else ""}><summary>{summary}</summary>'
    return [".. raw:: html", "", before, "", *lines, "", ".. raw:: html", "", "   </details>", ""]


def source_file(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """Return the name of a source file, to be linked by `link_sources`."""
    return [source("", "", nodes.literal(rawtext, text))], []


def link_sources(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link each source file to its page of viewcode; one that has no such page stays a plain name."""
    rendered = getattr(app.env, "_viewcode_modules", {}) if app.builder.format == "html" else {}
    for node in list(doctree.findall(source)):
        module = node.astext().removesuffix(".py").removesuffix("/__init__")
        if rendered.get(module.replace("/", ".")):
            linked = make_refnode(app.builder, docname, f"_modules/{module}", None, node.children)
            node.replace_self(linked)
        else:
            node.replace_self(node.children)


def proofs_text(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the page ``paper_proofs`` its text."""
    if docname != "paper_proofs":
        return
    app.env.note_dependency(str(ROOT / "proofs" / "README.md"), docname=docname)
    text = (ROOT / "proofs" / "README.md").read_text(encoding="utf-8")
    text = text.replace("# Proofs\n", "# Paper proofs\n", 1).replace(
        "[`ledger.toml`](ledger.toml)", "`proofs/ledger.toml`"
    )
    text = text.replace("(SOUNDNESS.md)", "(soundness.md)").replace("[`REASONS.md`](REASONS.md)", "`proofs/REASONS.md`")
    source[0] = re.sub(r"^### (\w+)$", r"(proof-\1)=\n### \1", text, flags=re.MULTILINE)


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
    """Register the directive, the role and the node."""
    app.add_directive("claims", Claims)
    app.add_role("source-file", source_file)
    app.add_node(source)
    app.connect("source-read", proofs_text)
    app.connect("doctree-resolved", link_sources)
    app.connect("autodoc-process-docstring", link_lemmas)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
