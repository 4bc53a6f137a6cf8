#!/usr/bin/env python3
"""What does Coq show after each sentence of a proof?

``python3 proofs/step_through.py refine.newton_norm_left`` builds what the file of the theorem imports in a scratch
folder, feeds the file to ``coqtop`` sentence by sentence, and writes what it showed to ``proofs/steps/``. The
documentation is made from that record and needs no Coq; a test fails when the proof is no longer the one on record.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROOFS = Path(__file__).resolve().parent
sys.path.insert(0, str(PROOFS.parent / "tests"))

import theorems  # noqa: E402  the reader of the sources, which the tests use as well

SECONDS = 150  # for each file that is built, and for the proof
ARGUMENTS = ["-Q", ".", "Entmax"]
BULLET = re.compile(r"([-+*]+|[{}])\s*(.*)", flags=re.DOTALL)


def split(text: str) -> list[str]:
    """Return the sentences of Coq as it reads them: with their full stops, and bullets and braces on their own."""
    found = []
    for rest in theorems.sentences(text):
        while match := BULLET.fullmatch(rest):
            bullet, rest = match.groups()
            found.append(bullet)
        if rest:
            found.append(f"{rest}.")
    return found


def source(root: Path, name: str) -> str:
    """Return statement and proof of ``stage.name`` as they stand in the file."""
    stage, own = name.split(".")
    (block,) = [block for block in theorems.blocks(root, stage) if block.name == own]
    return f"{block.text}\n{block.proof}"


def fingerprint(root: Path, name: str) -> str:
    """Return the hash of the statement and the proof, by which a record knows its source."""
    return hashlib.sha256(source(root, name).encode()).hexdigest()


def state(printed: str) -> dict[str, Any]:
    """Return hypotheses and goal in focus, if any, and the other goals, from what coqtop printed."""
    printed = re.sub(r"<infomsg>.*?</infomsg>", "", printed, flags=re.DOTALL)
    focus, *others = re.split(r"\n *goal \d+ (?:\(ID \d+\) )?is:\n", printed)
    above, rule, below = focus.partition("  ============================\n")
    hypotheses = re.sub(r"\A.*?goals?\b[^\n]*\n", "", above, flags=re.DOTALL) if rule else ""
    return {
        "hypotheses": [" ".join(one.split()) for one in re.split(r"\n {2}(?! )", f"\n{hypotheses}") if one.strip()],
        "goal": "\n".join(line.removeprefix("  ") for line in below.rstrip().splitlines()),
        "others": [" ".join(other.split()) for other in others],
    }


def coq(folder: Path, program: str, *arguments: str, text: str = "") -> str:
    """Run a program of Coq in a folder and return what it printed."""
    done = subprocess.run(
        [program, *ARGUMENTS, *arguments],
        cwd=folder,
        timeout=SECONDS,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or re.search(r"^(?:Syntax )?Error", done.stdout, flags=re.MULTILINE):
        sys.exit(f"{done.stdout[-4000:]}\n{program} failed")
    return done.stdout


def record(root: Path, name: str) -> dict[str, Any]:
    """Return the record of ``stage.name``: each sentence, and the state after it."""
    stage, own = name.split(".")
    before, _, _ = (root / "proofs" / f"{stage}.v").read_text(encoding="utf-8").partition(f"\nTheorem {own} ")
    proof = split(source(root, name))
    sentences = split(before) + proof
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for other in theorems.stages(root)[: theorems.stages(root).index(stage)]:
            shutil.copy(root / "proofs" / f"{other}.v", folder)
            coq(folder, "coqc", f"{other}.v")
        printed = coq(folder, "coqtop", "-emacs", text="\n".join(sentences) + "\n")
    shown = re.split(r"<prompt>.*?</prompt>", printed)[1 : len(sentences) + 1]
    steps: list[dict[str, Any]] = []
    for sentence, text in zip(proof, shown[-len(proof) :], strict=True):
        now = state(text)
        if sentence == "Proof.":  # it changes nothing, and coqtop shows nothing
            now = {key: steps[-1][key] for key in now}
        steps.append({"sentence": sentence, **now})
    version = printed.partition("\n")[0].split()[-1]
    return {"theorem": name, "source": fingerprint(root, name), "coq": version, "steps": steps}


def main(arguments: list[str]) -> int:
    """Record one proof."""
    if len(arguments) != 1:
        print("usage: step_through.py STAGE.THEOREM", file=sys.stderr)
        return 2
    path = PROOFS / "steps" / f"{arguments[0]}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(record(PROOFS.parent, arguments[0]), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote proofs/steps/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
