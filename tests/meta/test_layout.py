"""Does the source tree keep its layers, its independence of any one machine, and one version number?"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A module of adasplash2 imports from its own rank and below. The first part of its name decides the rank.
RANKS = {
    "arguments": 0,
    "operands": 0,
    "row_arguments": 3,
    "targets": 0,
    "visible": 0,
    "mask_ranges": 0,
    "nested": 0,
    "transforms": 0,
    "problem": 0,
    "launch_table": 0,
    "orders": 0,
    "starts": 0,
    "state": 0,
    "kernels": 0,
    "stages": 0,
    "launch": 1,
    "row_launch": 1,
    "reference": 1,
    "ops": 2,
    "row_ops": 2,
    "api": 3,
    "maps": 3,
    "losses": 3,
    "alpha_module": 0,
    "choice": 0,
    "attention_modules": 4,
    "nn": 4,
    "varlen": 4,
    "weights": 4,
    "prepared": 1,
    "integrations": 4,
    "": 4,  # adasplash2/__init__.py, which exports the api
    "aot": 5,
    "aot_rows": 5,
    "families": 5,
    "workloads": 5,
    "data": 5,
    "runs": 5,
    "verify": 5,
    "bench": 5,
    "conformance": 5,
    "usage": 5,
    "cli": 6,
    "__main__": 7,
}

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|Users|tmp)/|\b[A-Z]:\\Users")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs|deb\.debian\.org")


def project_files(root: Path) -> list[Path]:
    """Return the files git tracks or would track; without git, all but those that tools leave behind."""
    if (root / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
        return sorted({path for path in (root / name for name in names) if path.is_file()})
    left_behind = re.compile(
        r"^(\.venv|\.\w+_cache|\.hypothesis|build|dist|_build|generated|__pycache__|.*\.egg-info)$"
    )
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(left_behind.match(part) for part in path.relative_to(root).parts)
    )


def imported(path: Path, root: Path) -> set[str]:
    """Return the absolute names that a file imports, at any depth; ``from a import b`` gives ``a.b``."""
    package = list(path.relative_to(root).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def rank_of(name: str, root: Path) -> int:
    """Return the rank of ``adasplash2.x.y``; a name that is no module has the rank of the package."""
    parts = name.split(".")[1:]
    head = parts[0] if parts else ""
    package = root / "adasplash2"
    if head and not (package / head).is_dir() and not (package / f"{head}.py").is_file():
        head = ""
    if head not in RANKS:
        raise KeyError(f"adasplash2/{head} has no rank: give it a place in the import order in RANKS")
    return RANKS[head]


def uphill(root: Path) -> list[str]:
    """Return one line for each import of adasplash2 that goes against the order."""
    found = []
    for path in sorted((root / "adasplash2").rglob("*.py")):
        file = path.relative_to(root)
        own = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for name in sorted(imported(path, root)):
            if name.split(".")[0] == "adasplash2" and rank_of(name, root) > rank_of(own, root):
                found.append(f"{file.as_posix()} imports {name}")
    return found


def test_adasplash2_imports_point_one_way():
    assert uphill(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/refine.py", "from ..launch import LAUNCH"),
        ("kernels/refine.py", "from .. import ops"),
        ("ops.py", "import adasplash2.api"),
        ("ops.py", "from adasplash2 import entmax_attention"),
        ("api.py", "def f():\n    from .verify import measure"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, file, line):
    package = tmp_path / "adasplash2"
    for name in ("__init__", "launch", "ops", "api", "verify/__init__", "verify/measure", "kernels/__init__"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    (package / "api.py").write_text("from .ops import forward\nfrom . import launch\n")
    (package / "__init__.py").write_text("from .api import entmax_attention\n")
    assert uphill(tmp_path) == []
    with open(package / file, "a") as source:
        source.write(line + "\n")
    assert len(uphill(tmp_path)) == 1


def circles(root: Path) -> list[tuple[str, ...]]:
    """Return the modules that import each other, however many lie in between; imports within functions count."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("adasplash2", "entmax_ref")
        for path in sorted((root / package).rglob("*.py"))
    }

    def module_of(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    wanted = {name: {module_of(one) for one in imported(path, root)} - {name, ""} for name, path in files.items()}
    reached: dict[str, set[str]] = {}
    for name in wanted:
        seen, ahead = set(), [name]
        while ahead:
            new = wanted[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[name] = seen
    return sorted(
        {
            tuple(sorted(other for other in reached[name] if name in reached[other]))
            for name in wanted
            if name in reached[name]
        }
    )


def test_no_modules_import_each_other():
    assert circles(ROOT) == []


def test_a_circle_is_found(tmp_path):
    package = tmp_path / "adasplash2" / "bench"
    package.mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "command": "def run():\n    from .speed import measure\n",
        "speed": "from . import keeping, table\n",
        "keeping": "from .command import INTERRUPTED\n",
        "table": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    (package.parent / "__init__.py").touch()
    bench = "adasplash2.bench"
    assert circles(tmp_path) == [(f"{bench}.command", f"{bench}.keeping", f"{bench}.speed")]
    (package / "keeping.py").write_text("")
    assert circles(tmp_path) == []


def test_entmax_ref_never_names_torch_or_adasplash2():
    for path in sorted((ROOT / "entmax_ref").rglob("*.py")):
        heads = {name.split(".")[0] for name in imported(path, ROOT)}
        assert not heads & {"torch", "triton", "adasplash2"}, path.relative_to(ROOT).as_posix()


def test_entmax_ref_works_with_numpy_alone():
    """Every import of anything but NumPy and the standard library is refused, then the package is used."""
    program = """
import sys

class Refuse:
    allowed = sys.stdlib_module_names | {"numpy", "entmax_ref"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"refused: {name}", name=name)

import numpy
sys.meta_path.insert(0, Refuse())
import entmax_ref
probs = entmax_ref.entmax(numpy.array([2.0, 1.5, 0.1, -1.0]))
assert abs(probs.sum() - 1.0) <= 4 * numpy.finfo(float).eps and (probs[2:] == 0.0).all(), probs
query = numpy.ones((1, 2, 3, 4))
assert entmax_ref.attention(query, query, query).shape == (1, 2, 3, 4)
assert not {"torch", "triton", "adasplash2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_importing_adasplash2_needs_no_device():
    program = "import adasplash2, torch; assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_no_file_names_one_machine_or_a_registry():
    found = []
    for path in project_files(ROOT):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize("line", ["see /ho" + "me/me/x", "open('/t" + "mp/x')", "C:" + r"\Users\me"])
def test_a_path_of_one_machine_is_found(line):
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["a/home/b", "docs/work/x", "the /tmp folder", "rate/root/"])
def test_other_paths_are_left_alone(line):
    assert not MACHINE_PATH.search(line)


def test_both_packages_ship_their_types():
    for package in ("entmax_ref", "adasplash2"):
        assert (ROOT / package / "py.typed").is_file()


def test_one_version_number():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation and citation.group(1) == version
    assert changelog and changelog.group(1) == version
