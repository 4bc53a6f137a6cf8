"""What does Coq show while it reads a proof?  ``steps`` shows a record that proofs/step_through.py made of one.

The argument is the theorem, as ``stage.name``. The content has a remark on a step per paragraph, ``3. In words.``
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import theorems  # tests/theorems.py
from claims import ROOT, code_block, folded
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def summary(step: dict[str, Any]) -> str:
    """Return what is left to prove, in a few words."""
    left = len(step["others"]) + bool(step["goal"])
    if not left:
        return "Nothing is left to prove"
    if not step["goal"]:
        return f"This goal is proved, {left} {'is' if left == 1 else 'are'} left"
    return "1 goal" if left == 1 else f"{left} goals, this one first"


def changes(step: dict[str, Any], known: set[str], goal: str) -> list[str]:
    """Return what a sentence changed, as a field list of reStructuredText: only what was not there before it."""
    new = [hypothesis for hypothesis in step["hypotheses"] if hypothesis not in known]
    fields = {
        "Known": "\n".join(new),
        "Goal": step["goal"] if step["goal"] != goal else "",
        "Later": "\n".join(step["others"]) if step["goal"] else "",
    }
    lines = []
    for field, text in fields.items():
        if text:
            lines += [f":{field}:", *(f"   {line}" for line in code_block(text))]
    return lines


class Steps(SphinxDirective):
    """The sentences of a proof, and what each of them changed."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the steps; the page is built again when the record changes."""
        (name,) = self.arguments
        path = ROOT / "proofs" / "steps" / f"{name}.json"
        self.env.note_dependency(str(path))
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
        paragraphs = [" ".join(text.split()) for text in "\n".join(self.content).split("\n\n")]
        remarks = {int(number): words for number, words in (text.split(". ", 1) for text in paragraphs)}
        if len(remarks) < len(paragraphs) or not set(remarks) <= set(range(1, len(steps) + 1)):
            raise self.error(f"each remark needs a number of its own, from 1 to {len(steps)}")
        lines = [f".. _steps-{name.replace('.', '-')}:", ""]
        known: set[str] = set()
        goal = ""
        for number, step in enumerate(steps, 1):
            sentence = theorems.shown(ROOT, name) if number == 1 else step["sentence"]
            inside = [f"**{number}.** {remarks.get(number, '')}", "", *code_block(sentence)]
            changed = changes(step, known, goal) if number > 1 else []
            if changed or (goal and not step["goal"]):
                inside += (
                    folded(summary(step), changed, is_open=number in remarks) if changed else [summary(step) + "."]
                )
            lines += ["", ".. container:: step", "", *(f"   {line}" for line in inside), ""]
            known, goal = set(step["hypotheses"]) or known, step["goal"]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("steps", Steps)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
