"""Does every public name have the numpydoc sections that the reference is made of, by numpydoc's own validator?"""

import importlib
import inspect

import pytest

validate = pytest.importorskip("numpydoc.validate", reason="numpydoc comes with the extra docs").validate

PUBLIC = (
    "adasplash2",
    "adasplash2.nn",
    "adasplash2.workloads",
    "entmax_ref",
    "entmax_ref.attention",
    "entmax_ref.bounds",
    "entmax_ref.certify",
    "entmax_ref.oracle",
    "entmax_ref.solvers",
    "entmax_ref.stages",
)
NOT_ASKED = {
    "ES01": "a second paragraph where one line says it all",
    "EX01": "an example of everything",
    "SA01": "a See Also of everything",
    "SA03": "capitals there",
    "RT02": "no name for what is returned; ours are named",
    "RT04": "a capital where a name of the code comes first",
    "PR08": "the same",
}


def documented(module):
    """Return the full names of the functions and classes that a module exports, where they are defined."""
    package = importlib.import_module(module)
    exported = [getattr(package, name) for name in package.__all__]
    return [
        f"{one.__module__}.{one.__qualname__}" for one in exported if inspect.isroutine(one) or isinstance(one, type)
    ]


def resolved(name):
    """Return the function or class of a full name."""
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module), own)


def refers(message, name):
    """Whether a parameter without a type is one that another function documents: ``As given to `entmax`.``"""
    parameter = message.split('"')[1]
    lines = resolved(name).__doc__.splitlines()
    heads = [place for place, line in enumerate(lines) if parameter in line.strip().split(", ")]
    return any(lines[place + 1].strip().startswith("As ") for place in heads)


def faults(name):
    """Return what the validator finds, less what is not asked for."""
    one = resolved(name)
    has_fields = isinstance(one, type) and "Attributes\n" in one.__doc__  # they are the parameters of such a class
    return [
        f"{name}: {code} {message}"
        for code, message in validate(name)["errors"]
        if code not in NOT_ASKED
        and not (code == "PR01" and has_fields)
        and not (code == "PR04" and refers(message, name))
    ]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_docstrings_are_complete(module):
    names = documented(module)
    assert names
    assert [fault for name in names for fault in faults(name)] == []


def test_a_fault_is_found(tmp_path, monkeypatch):
    (tmp_path / "bare_module.py").write_text(
        'def bare(scores, alpha):\n    """Return twice the scores.\n\n    Parameters\n    ----------\n    scores\n'
        '        Any.\n    """\n    return 2 * scores\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    codes = {fault.split()[1] for fault in faults("bare_module.bare")}
    assert {"PR01", "PR04", "RT01"} <= codes
