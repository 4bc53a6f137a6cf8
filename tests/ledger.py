"""Which claims does the ledger hold, and where do code, tests and proofs name them?

Standard library only, and nothing is imported from the files it reads, so the documentation build can use it.

``python3 tests/ledger.py`` prints where they disagree; ``--write`` first fills in the ledger's code lists, ``--lock``
first takes down what the theorems state now: read the difference before you commit it.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path

import theorems

PACKAGES = ("entmax_ref", "adasplash2")
PROVED = ("proved for reals", "proved for floats", "counterexample")
STATUSES = (*PROVED, "paper", "assumed")

NAME = r"`{0,2}(?:\w+)`{0,2}"
# A list may run on over a line end, inside a docstring or a comment, as long as the line ends in a comma.
MENTION = re.compile(rf"\bLemmas?:[ \t]*({NAME}(?:[ \t]*,\s*(?:#[ \t]*)?{NAME})*)")


@dataclass(frozen=True)
class Claim:
    """One entry of ``proofs/ledger.toml``; the header of that file says what the fields mean."""

    name: str
    statement: str
    status: str
    theorem: str
    code: list[str]


def claims(root: Path) -> list[Claim]:
    """Return the entries of the ledger in the order of the file."""
    with open(root / "proofs" / "ledger.toml", "rb") as file:
        entries = tomllib.load(file)["lemma"]
    expected = [field.name for field in fields(Claim)]
    for entry in entries:
        if sorted(entry) != sorted(expected):
            raise ValueError(f"ledger.toml: entry {entry.get('name')!r} has the keys {sorted(entry)}, not {expected}")
    return [Claim(**entry) for entry in entries]


def code_sites(root: Path) -> dict[str, set[str]]:
    """Return, for every name after ``Lemma:`` or ``Lemmas:`` in the two packages, the files that have it."""
    sites = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for mention in MENTION.finditer(path.read_text(encoding="utf-8")):
                for name in re.findall(r"\w+", mention.group(1)):
                    sites[name].add(path.relative_to(root).as_posix())
    return dict(sites)


def _marked(decorators: list[ast.expr], where: str) -> list[str]:
    """Return the names that ``@lemma(...)`` or ``@pytest.mark.lemma(...)`` gives."""
    names = []
    for call in decorators:
        callee = call.func if isinstance(call, ast.Call) else call
        if getattr(callee, "id", getattr(callee, "attr", None)) != "lemma":
            continue
        arguments = call.args if isinstance(call, ast.Call) else []
        literal = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if not literal or len(literal) != len(arguments):
            raise ValueError(f"{where}: @lemma takes one or more names as plain strings")
        names += literal
    return names


def test_sites(root: Path) -> dict[str, set[str]]:
    """Return, for every name in a ``@lemma`` marker, the pytest node ids of the tests that carry it."""
    sites = defaultdict(set)
    for path in sorted((root / "tests").rglob("test_*.py")):
        file = path.relative_to(root).as_posix()

        def visit(body: list[ast.stmt], prefix: str, inherited: list[str]) -> None:
            for node in body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    continue
                where = f"{prefix}::{node.name}"
                names = inherited + _marked(node.decorator_list, where)
                if isinstance(node, ast.ClassDef):
                    if node.name.startswith("Test"):
                        visit(node.body, where, names)
                elif node.name.startswith("test"):
                    for name in names:
                        sites[name].add(where)
                elif names:
                    raise ValueError(f"{where}: @lemma on a function that pytest does not collect")

        visit(ast.parse(path.read_text(encoding="utf-8"), str(path)).body, file, [])
    return dict(sites)


def proof_sections(root: Path) -> list[str]:
    """Return the names of the ``### name`` sections of ``proofs/README.md``."""
    text = (root / "proofs" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)


@dataclass(frozen=True)
class Reason:
    """One section of ``proofs/REASONS.md``: why a reader should believe a claim, and under which stage it stands."""

    name: str
    stage: str
    text: str


def reasons(root: Path) -> list[Reason]:
    """Return the sections of ``proofs/REASONS.md`` in the order of the file."""
    text = (root / "proofs" / "REASONS.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^(?=###? )", text, flags=re.MULTILINE)
    found, stage = [], ""
    for section in sections:
        heading, _, text = section.partition("\n")
        if heading.startswith("### "):
            found.append(Reason(heading.removeprefix("### "), stage, text.strip()))
        else:
            stage = heading.removeprefix("## ")
    return found


def reason_problems(root: Path, entries: list[Claim]) -> list[str]:
    """Return one line for each claim without its one reason, or with it under another stage than its theorem."""
    given = reasons(root)
    names, theorem = [reason.name for reason in given], {claim.name: claim.theorem for claim in entries}
    found = [
        f"{name}: {names.count(name)} sections '### {name}' in proofs/REASONS.md"
        for name in theorem
        if names.count(name) != 1
    ]
    for reason in given:
        if reason.name not in theorem:
            found.append(f"{reason.name}: has a reason but no entry in proofs/ledger.toml")
        elif not reason.text or not reason.stage:
            found.append(f"{reason.name}: proofs/REASONS.md has no text, or no stage above it")
        elif theorem[reason.name] and theorem[reason.name].split(".")[0] != reason.stage:
            found.append(
                f"{reason.name}: under {reason.stage} in proofs/REASONS.md, the theorem is {theorem[reason.name]}"
            )
    return found


def theorem_problems(root: Path, entries: list[Claim]) -> list[str]:
    """Return one line for each claim whose theorem is missing, not finished, or not what it was."""
    stated = theorems.statements(root, kinds=("Theorem",))
    found = theorems.gaps(root)
    for claim in entries:
        if claim.status in PROVED and not claim.theorem:
            found.append(f"{claim.name}: {claim.status!r}, but no theorem is named")
        if claim.status in ("paper", "assumed") and claim.theorem:
            found.append(f"{claim.name}: has the theorem {claim.theorem}, but the status {claim.status!r}")
        if claim.theorem and claim.theorem not in stated:
            found.append(f"{claim.name}: proofs/ has no theorem {claim.theorem}")
        if claim.theorem and claim.theorem.split(".")[-1] != claim.name:
            found.append(f"{claim.name}: the theorem {claim.theorem} must have the name of the claim")
    path = root / "proofs" / "statements.txt"
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    now = theorems.lock(root).splitlines()
    for line in [line for line in before if line not in now] + [line for line in now if line not in before]:
        side = "was" if line in before else "is now"
        found.append(f"a statement changed; proofs/statements.txt {side}: {line}")
    if sorted(before) == sorted(now) and before != now:
        found.append("proofs/statements.txt: the order changed; run 'python3 tests/ledger.py --lock'")
    return found


def problems(root: Path) -> list[str]:
    """Return one line for each place where ledger, code, tests and proofs disagree; empty if they agree."""
    entries = claims(root)
    code, tests, sections = code_sites(root), test_sites(root), proof_sections(root)
    known = [claim.name for claim in entries]
    found = [f"{name}: in the ledger more than once" for name in sorted(set(known)) if known.count(name) > 1]
    found += [
        f"{name}: proved more than once in proofs/README.md"
        for name in sorted(set(sections))
        if sections.count(name) > 1
    ]
    for kind, sites in (("code", code), ("tests", tests)):
        found += [
            f"{name}: named in {kind} ({', '.join(sorted(sites[name]))}) but not in proofs/ledger.toml"
            for name in sorted(set(sites) - set(known))
        ]
    found += [f"{name}: has a proof but no entry in proofs/ledger.toml" for name in sections if name not in known]
    found += reason_problems(root, entries) + theorem_problems(root, entries)
    for claim in entries:
        sites = sorted(code.get(claim.name, ()))
        if claim.status not in STATUSES:
            found.append(f"{claim.name}: status {claim.status!r} is none of {', '.join(STATUSES)}")
        if not claim.statement or "\n" in claim.statement:
            found.append(f"{claim.name}: the statement must be one line")
        if not sites:
            found.append(f"{claim.name}: no code names it; write 'Lemma: {claim.name}' where it is relied on")
        if sites and sites != sorted(claim.code):
            found.append(f"{claim.name}: the ledger has code = {sorted(claim.code)}, the sources say {sites}")
        if claim.name not in tests:
            found.append(f'{claim.name}: no test carries @lemma("{claim.name}")')
        if claim.status != "assumed" and claim.name not in sections:
            found.append(f"{claim.name}: no section '### {claim.name}' in proofs/README.md")
    return found


def write_code_lists(root: Path) -> None:
    """Set ``code`` of every entry of the ledger to the files that name the claim; leave the rest as it is."""
    path = root / "proofs" / "ledger.toml"
    text, sites = path.read_text(encoding="utf-8"), code_sites(root)

    def with_sites(entry: re.Match[str]) -> str:
        files = sorted(sites.get(entry.group(2), ()))
        lines = "".join(f'    "{file}",\n' for file in files)
        return entry.group(1) + ("code = [\n" + lines + "]" if files else "code = []")

    pattern = re.compile(r'(^name = "(\w+)"\n(?:(?!\[\[).*\n)*?)code = \[[^\]]*\]', flags=re.MULTILINE)
    path.write_text(pattern.sub(with_sites, text), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Print the problems and return 1 if there are any."""
    root = Path(__file__).resolve().parents[1]
    if arguments not in ([], ["--write"], ["--lock"]):
        print("usage: ledger.py [--write | --lock]", file=sys.stderr)
        return 2
    if "--write" in arguments:
        write_code_lists(root)
    if "--lock" in arguments:
        (root / "proofs" / "statements.txt").write_text(theorems.lock(root), encoding="utf-8")
    found = problems(root)
    print("\n".join(found) or "ledger, code, tests and proofs agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
