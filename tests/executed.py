"""Did a test of every claim run and pass?  A ledger that names tests proves little if all of them were skipped.

`watch` listens to a run. After a complete one, each claim of proofs/ledger.toml that no passed test carries is named,
and the exit code is 1. A run that leaves tests out on purpose, or names their folders one by one, is not judged. Of a
test with parameters one that passed is enough.
"""

from __future__ import annotations

from pathlib import Path

import ledger
import pytest

# Options that leave tests out.
NARROWING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "setuponly")


class Watch:
    """Takes down the tests that passed, without their parameters; the reports of xdist's workers arrive here too."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.passed: set[str] = set()
        self.missing: list[str] = []

    def is_complete(self, session: pytest.Session) -> bool:
        """Return whether the run was asked for all tests, and was not stopped before their end."""
        config = session.config
        asked = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
        return (
            config.rootpath.resolve() == self.root.resolve()  # else node ids begin elsewhere
            and bool(asked & {self.root.resolve(), (self.root / "tests").resolve()})
            and not any(getattr(config.option, name, None) for name in NARROWING)
            and not session.shouldfail
            and not session.shouldstop
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down a test that passed."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid.partition("[")[0])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a complete run in which no test of some claim passed."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not self.is_complete(session):
            return
        sites = ledger.test_sites(self.root)
        self.missing = [
            claim.name for claim in ledger.claims(self.root) if not self.passed & sites.get(claim.name, set())
        ]
        if self.missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the claims that nothing exercised."""
        if self.missing:
            terminalreporter.section("claims without a test that passed", red=True)
            terminalreporter.write_line("\n".join(self.missing))


def watch(config: pytest.Config, root: Path) -> None:
    """Listen to the run, unless this is a worker of xdist, which sees only its share."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Watch(root))
