#!/usr/bin/env python3
"""Does Coq accept every proof, and on what do they rest?

``python3 proofs/check.py`` builds the development from nothing, asks Coq for the axioms of all theorems, and lets
the independent checker coqchk read what was compiled. Exit code 1 if a proof fails or rests on an axiom that is not in
`ALLOWED`, or if a file holds an axiom, or anything else that has no place there, even if no theorem uses it. Without
Coq it says so and does nothing, with exit code 0; with ``--required`` that is an error.

Nothing is written beside the sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

PROOFS = Path(__file__).resolve().parent
sys.path.insert(0, str(PROOFS.parent / "tests"))

import theorems  # noqa: E402  the reader of the sources, which the tests use as well

# The real numbers of Coq's library are classical, and its functions extensional. Nothing else is assumed.
ALLOWED = {
    "ClassicalDedekindReals.sig_not_dec",
    "ClassicalDedekindReals.sig_forall_dec",
    "FunctionalExtensionality.functional_extensionality_dep",
    "Classical_Prop.classic",
}
SECONDS = 150  # for each of build, gate and checker; all three take well under a minute in all
ARGUMENTS = ["-Q", ".", "Entmax"]


def run(folder: Path, heading: str, *command: str) -> str:
    """Run a command under the time limit and return what it printed; end the program if it fails."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{heading}: not done after {SECONDS} s")
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{heading}: {' '.join(command)} failed with exit code {done.returncode}")
    print(f"{heading}: {time.monotonic() - start:.1f} s", flush=True)
    return done.stdout


def axioms(printed: str) -> set[str]:
    """Return the names in what ``Print Assumptions`` prints; every line that names something counts."""
    if "Closed under the global context" in printed:
        return set()
    lines = printed.split("Axioms:", 1)[1].splitlines()
    return {re.split(r"\s|:", line, maxsplit=1)[0] for line in lines if line and not line[0].isspace()}


def check(folder: Path) -> int:
    """Build, gate and check a copy of the sources; return the exit code."""
    stages = theorems.stages(folder.parent)
    names = list(theorems.statements(folder.parent))
    gaps = theorems.gaps(folder.parent)  # an axiom that no theorem uses is not in what Coq prints
    print("\n".join(gaps), end="\n" if gaps else "")
    run(folder, "makefile", "coq_makefile", "-f", "_CoqProject", "-o", "Makefile.coq")
    run(folder, "build", "make", "-f", "Makefile.coq", "-j2")
    gate = f"From Entmax Require {' '.join(stages)}.\n"
    for part, start in enumerate(range(0, len(names), 50)):
        gate += f"Definition part_{part} := ({', '.join('@' + name for name in names[start : start + 50])}, tt).\n"
    parts = ", ".join(f"part_{part}" for part in range((len(names) + 49) // 50))
    gate += f"Definition all_theorems := ({parts}, tt).\nPrint Assumptions all_theorems.\n"
    (folder / "gate.v").write_text(gate, encoding="utf-8")
    found = axioms(run(folder, "axiom gate", "coqc", *ARGUMENTS, "gate.v"))
    for axiom in sorted(found):
        print(f"  {axiom}{'' if axiom in ALLOWED else '   NOT ALLOWED'}")
    own_files = [word for stage in stages for word in ("-norec", f"Entmax.{stage}")]
    run(folder, "coqchk", "coqchk", "-silent", *ARGUMENTS, *own_files)
    with open(folder / "ledger.toml", "rb") as file:
        claimed = [entry["theorem"] for entry in tomllib.load(file)["lemma"] if entry["theorem"]]
    missing = sorted(set(claimed) - set(names))
    lines = sum(len((folder / f"{stage}.v").read_text(encoding="utf-8").splitlines()) for stage in stages)
    print(f"{len(names)} theorems in {lines} lines, {len(claimed)} of them claims of the ledger; {len(found)} axioms")
    if missing:
        print(f"the ledger names theorems that are not there: {', '.join(missing)}")
    if found - ALLOWED:
        print(f"axioms that are not allowed: {', '.join(sorted(found - ALLOWED))}")
    return 1 if gaps or missing or found - ALLOWED else 0


def main(arguments: list[str]) -> int:
    """Check a copy in a folder of its own."""
    if arguments not in ([], ["--required"]):
        print("usage: check.py [--required]", file=sys.stderr)
        return 2
    if shutil.which("coqc") is None:
        print("SKIPPED: the proofs were not checked, since there is no Coq here (Debian: coq, libcoq-flocq)")
        return 1 if arguments else 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "proofs"
        folder.mkdir()
        for path in [*PROOFS.glob("*.v"), PROOFS / "_CoqProject", PROOFS / "ledger.toml"]:
            shutil.copy(path, folder)
        return check(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
