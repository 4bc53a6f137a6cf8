"""Does the table of options name every argument, and only tests that exist and look at what they are named for?"""

from __future__ import annotations

import ast
import functools
import inspect
import tomllib
from pathlib import Path

import pytest

from adasplash2 import entmax_attention

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = tomllib.loads((ROOT / "docs" / "options.toml").read_text(encoding="utf-8"))["option"]
PATHS = ("oracle", "reference", "interpreter", "gpu")


@functools.cache
def trees_of(file: str) -> dict[str, ast.AST]:
    """Return the functions and the assigned names of a file."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
    return found


def names_in(file: str, name: str) -> set[str]:
    """Return the names that a function of a file, or what is assigned to a name, uses."""
    tree = trees_of(file)[name]
    bodies = tree.body + tree.decorator_list if isinstance(tree, ast.FunctionDef) else [tree]
    nodes = [node for body in bodies for node in ast.walk(body)]
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


def reaches(file: str, name: str, wanted: str) -> bool:
    """Return whether a function uses a name, itself or through others of its file or of tests/staged.py."""
    seen, ahead = set(), [name]
    while ahead:
        one = ahead.pop()
        if one == wanted:
            return True
        if one not in seen:
            seen.add(one)
            own = file if one in trees_of(file) else "staged.py"
            ahead += names_in(own, one) if one in trees_of(own) else ()
    return False


def named_tests(option):
    """Yield (path, file, test) for each test that an option names."""
    for path in (*PATHS, "refused"):
        text = option.get(path, "no: ")
        if not text.startswith("no: "):
            yield path, *text.split("::")


@pytest.mark.parametrize("option", OPTIONS, ids=[option["title"] for option in OPTIONS])
def test_every_cell_is_a_test_or_a_reason(option):
    assert set(option) - {"refused"} == {"title", "arguments", *PATHS}
    for _, file, test in named_tests(option):
        assert isinstance(trees_of(file).get(test), ast.FunctionDef) and test.startswith("test_"), (
            f"{file} has no {test}"
        )
    for path in PATHS:
        assert not option[path].startswith("no: ") or len(option[path]) > len("no: ")


@pytest.mark.parametrize("option", OPTIONS, ids=[option["title"] for option in OPTIONS])
def test_what_the_kernels_do_not_take_is_an_error_that_a_test_asks_for(option):
    is_refused = option["gpu"].startswith("no: ")
    assert option["interpreter"].startswith("no: ") == is_refused, "the same kernels run on both"
    assert ("refused" in option) == is_refused
    if is_refused:
        file, test = option["refused"].split("::")
        assert names_in(file, test) & {"raises", "refused"}, f"{test} asks for no error"


@pytest.mark.parametrize("option", OPTIONS, ids=[option["title"] for option in OPTIONS])
def test_a_test_of_a_gpu_runs_there(option):
    for path, file, test in named_tests(option):
        is_marked = "gpu" in names_in(file, test) | (
            names_in(file, "pytestmark") if "pytestmark" in trees_of(file) else set()
        )
        if path == "gpu":
            assert is_marked or reaches(file, test, "DEVICE"), f"{test} never leaves the CPU"
        if path in ("interpreter", "reference", "oracle"):
            assert not is_marked, f"{test} needs a GPU"
        if path == "oracle":
            assert file.startswith("entmax_ref/")


def test_every_argument_has_a_row():
    named = {argument for option in OPTIONS for argument in option["arguments"]}
    assert named == set(inspect.signature(entmax_attention).parameters) - {"query", "key", "value"}


def test_titles_differ():
    titles = [option["title"] for option in OPTIONS]
    assert len(titles) == len(set(titles))
