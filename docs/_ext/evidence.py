"""What was measured?  Tables made from the records in docs/results when the pages are built.

The directive ``oracle-accuracy FILE`` shows what ``python -m adasplash2.bench.oracle_accuracy`` wrote, and
``oracle-versions FILE`` with what, when and on how many rows; ``oracle-speed FILE`` shows what
``python -m adasplash2.bench.oracle_speed`` wrote, and ``oracle-peers FILE`` what
``python -m adasplash2.bench.oracle_peers`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[1] / "results"


def number(value: float) -> str:
    """Return a measured number with two or three digits."""
    if value == float("inf"):
        return "∞"
    if value != 0.0 and not 0.01 <= value < 10000:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def table_row(cells: Iterable[str]) -> list[str]:
    """Return one row of a list-table."""
    return [f"   {'  ' if place else '* '}- {cell}" for place, cell in enumerate(cells)]


def list_table(*rows: Iterable[str]) -> list[str]:
    """Return a list-table whose first row is its head."""
    return [".. list-table::", "   :header-rows: 1", "", *(line for row in rows for line in table_row(row))]


class Record(SphinxDirective):
    """A directive about one record."""

    required_arguments = 1

    def record(self) -> dict[str, Any]:
        """Return the record, and rebuild the page when it changes."""
        path = RESULTS / self.arguments[0]
        self.env.note_dependency(str(path))
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def parsed(self, lines: Iterable[str]) -> list[nodes.Node]:
        """Return reStructuredText as nodes."""
        container = nodes.container()
        self.state.nested_parse(StringList(list(lines), source=self.arguments[0]), 0, container)
        return container.children


class OracleAccuracy(Record):
    """One row for each alpha and implementation; what a bound allows stands in brackets behind the error."""

    HEADINGS = ("alpha", "map", "tau", "tau, all rows", "probs", "probs, all rows", "sum", "support")

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [self.HEADINGS]
        for result in self.record()["results"]:
            for name, worst in result["implementations"].items():
                wrong = int(worst["wrong_support"])
                rows.append(
                    (
                        f"{result['alpha']:.4g}" if name == "entmax_ref" else "",
                        "**entmax_ref**" if name == "entmax_ref" else name,
                        number(worst["tau_ulps_centred"]),
                        number(worst["tau_ulps"]) + self._bound(worst.get("tau_bound_ulps")),
                        number(worst["probs_ulps_centred"]),
                        number(worst["probs_ulps"]) + self._bound(worst.get("probs_bound_ulps")),
                        number(worst["sum_ulps"]),
                        f"{wrong:,} (up to {number(worst['wrong_probs'])})" if wrong else "0",
                    )
                )
        return self.parsed(list_table(*rows))

    @staticmethod
    def _bound(value: float | None) -> str:
        return "" if value is None else f" ({number(value)})"


class OracleSpeed(Record):
    """One row for each kind of array: seconds of a sort, and how many times as long the oracle takes."""

    def run(self) -> list[nodes.Node]:
        """Return the table and how it was made."""
        record = self.record()
        names = [name for name in record["results"][0]["seconds"] if name != "sort"]
        rows = [("array", "sort, s", *names)]
        for result in record["results"]:
            seconds = result["seconds"]
            ratios = (f"{seconds[name] / seconds['sort']:.2f}" for name in names)
            rows.append((result["kind"], f"{seconds['sort']:.3f}", *ratios))
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        made = (
            f"``{record['command']}`` on {record['date']}, {record['n']} x {record['n']} float64 scores, "
            f"{record['machine']}, {versions}."
        )
        return self.parsed([*list_table(*rows), "", made])


class OraclePeers(Record):
    """One row for each alpha and implementation: rows that are wrong, and losses that are no number."""

    def run(self) -> list[nodes.Node]:
        """Return the table and how it was made."""
        record = self.record()
        rows = [("alpha", "map", "rows", "wrong support", "wrong probabilities", "no number as loss")]
        for result in record["results"]:
            for name, counts in result["implementations"].items():
                own = name == "entmax_ref"
                shown = (f"{counts[key]:,}" for key in ("rows", "support", "probs", "loss"))
                rows.append((f"{result['alpha']:g}" if own else "", f"**{name}**" if own else name, *shown))
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        made = f"``{record['command']}`` on {record['date']}, {record['machine']}, {versions}."
        return self.parsed([*list_table(*rows), "", made])


class OracleVersions(Record):
    """How the record was made."""

    def run(self) -> list[nodes.Node]:
        """Return a list."""
        record = self.record()
        own = [result["implementations"]["entmax_ref"] for result in record["results"]]
        rows, keys, undecided = (sum(one[name] for one in own) for name in ("rows", "decided", "undecided"))
        seconds = sum(one["certify_seconds"] for one in own)
        tau, probs = (max(one[name] for one in own) for name in ("tau_of_bound", "probs_of_bound"))
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        return self.parsed(
            [
                f"- Rows: {rows:,.0f} in all, at least {min(one['rows'] for one in own):,.0f} for each alpha, with "
                f"{keys + undecided:,.0f} keys.",
                f"- Certified in {1e6 * seconds / rows:.0f} microseconds a row on average; keys left undecided: "
                f"{undecided:,.0f}.",
                f"- Largest error over its bound: {tau:.2f} for tau, {probs:.2f} for a probability.",
                f"- Command: ``{record['command']}`` on {record['date']}, {record['machine']}.",
                f"- Versions: {versions}.",
            ]
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("oracle-accuracy", OracleAccuracy)
    app.add_directive("oracle-versions", OracleVersions)
    app.add_directive("oracle-speed", OracleSpeed)
    app.add_directive("oracle-peers", OraclePeers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
