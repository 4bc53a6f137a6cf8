"""Which checks are there, and how did targets fare?  Tables made from the suite and from a record when pages are built.

``conformance-checks`` lists the checks; ``conformance-about FILE``, ``conformance-table FILE`` and
``conformance-failures FILE`` show what ``adasplash2 verify --target ... --json FILE`` wrote.
"""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from evidence import Record, list_table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from entmax_ref.conformance import CHECKS, Outcome
from entmax_ref.conformance.outcome import from_record
from entmax_ref.conformance.table import mark


class Checks(SphinxDirective):
    """One row for each check."""

    def run(self) -> list[nodes.Node]:
        rows = [[f"``{check.name}``", check.level, check.claim, check.question] for check in CHECKS.values()]
        lines = list_table(["check", "level", "claim", "question"], *rows)
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source="checks"), 0, container)
        return container.children


class Found(Record):
    """A directive about the outcomes of a record."""

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes."""
        return [from_record(one) for one in self.record()["outcomes"]]


class About(Found):
    """What the record is of."""

    def run(self) -> list[nodes.Node]:
        about, found = self.record()["about"], self.outcomes()
        versions = dict.fromkeys(f"{one.target.split('.')[0]} {one.version}" for one in found)
        rest = ", ".join(f"{name} {about[name]}" for name in ("python", "numpy", "torch", "hypothesis"))
        text = f"Versions: {', '.join(versions)}; {rest}. Budget {about['budget']}, seed {about['seed']}, on a CPU."
        return self.parsed([text])


class Table(Found):
    """One row for each check, one column for each target; dtypes within a cell."""

    def run(self) -> list[nodes.Node]:
        found = self.outcomes()
        names = list(dict.fromkeys(one.target for one in found))
        rows = []
        for check in dict.fromkeys(one.check for one in found):
            cells = []
            for name in names:
                of_cell = [one for one in found if (one.check, one.target) == (check, name)]
                failed = [f"{one.dtype} {mark(one).split()[-1]}" for one in of_cell if one.status != "passed"]
                if of_cell and all(one.status == "skipped" for one in of_cell):
                    cells.append("not claimed")
                else:
                    cells.append(", ".join(failed) or "ok")
            rows.append([f"``{check}``", *cells])
        return self.parsed(list_table(["check", *(f"``{name}``" for name in names)], *rows))


class Failures(Found):
    """What failed, once for each check of a target."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        shown: set[tuple[str, str]] = set()
        for one in self.outcomes():
            if one.status in ("failed", "known failure") and (one.target, one.check) not in shown:
                shown.add((one.target, one.check))
                lines += [f"``{one.target}``, ``{one.check}``, {one.dtype}: {one.sentence.replace('`', '')}", ""]
                lines += [".. code-block:: python", "", *(f"   {line}" for line in one.reproduction.splitlines()), ""]
        return self.parsed(lines or ["Nothing."])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("conformance-checks", Checks)
    app.add_directive("conformance-about", About)
    app.add_directive("conformance-table", Table)
    app.add_directive("conformance-failures", Failures)
    return {"parallel_read_safe": True}
