"""How does pytest drive the suite?  Options, one test for each check and dtype of a target, and a table at the end.

A plugin of pytest, because options of a conftest inside an installed package are read too late. It is loaded in every
run of pytest, so it imports nothing until a target is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from entmax_ref.conformance.target import Target

_DEFAULT = "entmax_ref.conformance.adapters.oracle:rows"
_KEY = pytest.StashKey[Any]()
_PROPERTY = "entmax_outcome"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("entmax conformance", "pytest --pyargs entmax_ref.conformance")
    group.addoption(
        "--entmax-target",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="function that returns the target to test, or a list of them; repeat for more (default: the oracle)",
    )
    group.addoption(
        "--entmax-budget",
        choices=("quick", "default", "thorough"),
        default=None,
        help="how many examples to draw, and how long (default: default; quick without a target)",
    )
    group.addoption(
        "--entmax-level", action="append", default=[], help="run checks of this level only; repeat for more"
    )
    group.addoption("--entmax-check", action="append", default=[], help="run this check only; repeat for more")
    group.addoption("--entmax-json", metavar="FILE", default=None, help="also write every number found to this file")
    group.addoption("--entmax-report", metavar="FILE.html", default=None, help="also write a self-contained page")
    group.addoption("--entmax-seed", type=int, default=0, help="seed of the examples (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """Make the targets before anything is collected, so that what is wrong with one is a single line."""
    names = config.getoption("--entmax-target")
    if not names:
        return
    from entmax_ref.conformance.loading import TargetError, load
    from entmax_ref.conformance.running import unknown

    wrong = unknown(config.getoption("--entmax-level"), config.getoption("--entmax-check"))
    if wrong:
        raise pytest.UsageError(f"--entmax-{wrong}")
    try:
        config.stash[_KEY] = [target for name in names for target in load(name)]
    except TargetError as error:
        raise pytest.UsageError(str(error)) from error


def targets_of(config: pytest.Config) -> list[Target]:
    """Return the targets of this run; the oracle where none was named."""
    if _KEY not in config.stash:
        from entmax_ref.conformance.loading import load

        config.stash[_KEY] = load(_DEFAULT)
    found: list[Target] = config.stash[_KEY]
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each check and dtype."""
    if "entmax_cell" not in metafunc.fixturenames:
        return
    from entmax_ref.conformance.check import LEVELS
    from entmax_ref.conformance.running import cells

    config = metafunc.config
    levels, names = config.getoption("--entmax-level") or LEVELS, config.getoption("--entmax-check")
    parameters = [
        pytest.param((target, check, dtype), id=f"{target.name}-{check.name}-{dtype}".replace(" ", "_"))
        for target, check, dtype in cells(targets_of(config), levels, names)
    ]
    metafunc.parametrize("entmax_cell", parameters)


@pytest.fixture
def entmax_budget(request: pytest.FixtureRequest) -> Any:
    """Return the budget of the run."""
    from entmax_ref.conformance.running import BUDGETS

    name = request.config.getoption("--entmax-budget")
    return BUDGETS[name or ("default" if request.config.getoption("--entmax-target") else "quick")]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of the targets that were named."""
    if not config.getoption("--entmax-target"):
        return
    from pathlib import Path

    from entmax_ref.conformance.outcome import from_record, write_json
    from entmax_ref.conformance.page import write_page
    from entmax_ref.conformance.table import summary

    found = [
        from_record(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY and getattr(report, "when", "") == "call"
    ]
    if found:
        terminalreporter.write_sep("=", "entmax conformance")
        terminalreporter.write_line(summary(found, details=False))
    about = {name: config.getoption(f"--entmax-{name}") for name in ("budget", "seed")}
    for option, write in (("--entmax-json", write_json), ("--entmax-report", write_page)):
        if config.getoption(option):
            write(Path(config.getoption(option)), found, about)
