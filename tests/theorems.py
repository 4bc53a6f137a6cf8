"""What do the Coq files in proofs/ state, and is there a gap that Coq itself would not call an error?

Standard library only, and no Coq is needed: the files are read as text. A sentence ends with a full stop and white
space; comments do not count. What a file may hold is a list of what is allowed, not of what is forbidden:

* definitions stand in specification.v alone, so that a statement means what that file says;
* the other files hold lemmas and theorems, each with a proof that ends in ``Qed``, and tactics. A theorem is a claim,
  a lemma a step on the way to one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SPECIFICATION = "specification"
HEADER = ("From", "Require", "Import", "Open")
STATED = ("Lemma", "Theorem")
DEFINED = ("Definition", "Fixpoint", "Inductive")
UNFINISHED = re.compile(r"\b(?:admit|give_up|Admitted|Abort|Axiom|bypass_check|Unset|shelve)\b")

STATEMENT = re.compile(r"(Lemma|Theorem)\s+([\w']+)\s*(.*)", flags=re.DOTALL)


def stages(root: Path) -> list[str]:
    """Return the files of the development without their suffix, in the order in which they build."""
    project = root / "proofs" / "_CoqProject"
    if not project.is_file():
        return []
    return [line.removesuffix(".v") for line in project.read_text(encoding="utf-8").split() if line.endswith(".v")]


def sentences(text: str) -> list[str]:
    """Return the sentences of a Coq file, without comments, each on one line with single spaces."""
    kept, depth = [], 0
    for piece in re.split(r"(\(\*|\*\))", text):
        if piece == "(*":
            depth += 1
        elif piece == "*)":
            depth -= 1
        elif not depth:
            kept.append(piece)
    return [" ".join(sentence.split()) for sentence in re.split(r"\.(?=\s|$)", "".join(kept)) if sentence.strip()]


def statements(root: Path, kinds: tuple[str, ...] = STATED) -> dict[str, str]:
    """Return the statement of every lemma and theorem, or of those of some kinds, under ``stage.name``."""
    found = {}
    for stage in stages(root):
        for sentence in sentences((root / "proofs" / f"{stage}.v").read_text(encoding="utf-8")):
            match = STATEMENT.fullmatch(sentence)
            if match and match.group(1) in kinds:
                found[f"{stage}.{match.group(2)}"] = match.group(3)
    return found


def shown(root: Path, name: str) -> str:
    """Return the statement of ``stage.name`` as it stands in the file, for a reader."""
    stage, own = name.split(".")
    text = (root / "proofs" / f"{stage}.v").read_text(encoding="utf-8")
    found = re.search(rf"^Theorem {own}\b.*?\.(?=\nProof\.)", text, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise KeyError(f"proofs/{stage}.v: no theorem {own} whose proof begins on a line of its own")
    return found.group(0)


@dataclass(frozen=True)
class Block:
    """A piece of a Coq file: ``kind`` is its first word, or ``comment`` or ``heading``; ``proof`` may be empty."""

    kind: str
    name: str
    text: str
    proof: str


def blocks(root: Path, stage: str) -> list[Block]:
    """Return a file of the development in pieces for a reader, in its order; only blank lines are left out."""
    found: list[Block] = []
    lines = (root / "proofs" / f"{stage}.v").read_text(encoding="utf-8").splitlines()
    while lines:
        if not lines[0].strip():
            lines.pop(0)
            continue
        first, *rest = re.findall(r"[\w']+", lines[0].removeprefix("(*"))
        if lines[0].startswith("(*"):
            kind, name, end = "heading" if lines[0].startswith("(** ** ") else "comment", "", "*)"
        else:
            kind, end = first, "Qed." if first in STATED else "."
            name = rest[0] if first in (*STATED, *DEFINED) else ""
        length = next(number for number, line in enumerate(lines, 1) if line.rstrip().endswith(end))
        taken, lines = [line for line in lines[:length] if line.strip()], lines[length:]
        start = next((number for number, line in enumerate(taken) if line.startswith("Proof.")), length)
        found.append(Block(kind, name, "\n".join(taken[:start]), "\n".join(taken[start:])))
    return found


def gaps(root: Path) -> list[str]:
    """Return one line for each sentence that a file of the development may not hold; empty if there is none."""
    found = []
    listed = stages(root)
    present = {path.stem for path in (root / "proofs").glob("*.v")}
    for stage in sorted(present ^ set(listed)):
        found.append(f"proofs/{stage}.v: in only one of the folder and proofs/_CoqProject")
    for stage in listed:
        if stage not in present:
            continue
        is_specification = stage == SPECIFICATION
        allowed = HEADER + (DEFINED if is_specification else (*STATED, "Ltac"))
        proving = None
        for sentence in sentences((root / "proofs" / f"{stage}.v").read_text(encoding="utf-8")):
            where = f"proofs/{stage}.v: '{sentence[:60]}'"
            first = sentence.split()[0]
            if UNFINISHED.search(sentence):
                found.append(f"{where} leaves something unproved")
            elif proving is None and first not in allowed:
                found.append(f"{where} has no place here; begin with one of {', '.join(allowed)}")
            elif proving == "stated" and sentence != "Proof":
                found.append(f"{where} must be 'Proof'")
            if proving is None and first in STATED:
                proving = "stated"
            elif proving == "stated":
                proving = "proof"
            elif proving == "proof" and sentence == "Qed":
                proving = None
        if proving:
            found.append(f"proofs/{stage}.v: the last proof does not end in Qed")
    return found


def lock(root: Path) -> str:
    """Return the text of proofs/statements.txt: all that says what the theorems claim.

    That is each sentence of specification.v, what each file imports, and the statements themselves.
    """
    lines = []
    stated = statements(root, kinds=("Theorem",))
    for stage in stages(root):
        own = [name for name in stated if name.split(".")[0] == stage]
        if stage != SPECIFICATION and not own:
            continue
        lines += [f"== {stage}", ""]
        for sentence in sentences((root / "proofs" / f"{stage}.v").read_text(encoding="utf-8")):
            if stage == SPECIFICATION or sentence.split()[0] in HEADER:
                lines += [sentence, ""]
        for name in own:
            lines += [f"{name} {stated[name]}", ""]
    return "\n".join(lines)
