"""Do the examples of the documentation run as they stand, and does every stage of the proofs have its page?"""

import doctest
from pathlib import Path

import ledger
import pytest
import theorems

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["import_the_reference", "oracle", "train", "tutorial"])
def test_the_examples_of_a_page_run(page):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(str(DOCS / f"{page}.rst"), module_relative=False, optionflags=options)
    assert tried >= 3 and failed == 0


@pytest.mark.parametrize(
    ("folder", "directive", "stages"),
    [
        ("proofs", "claims", sorted({reason.stage for reason in ledger.reasons(DOCS.parent)})),
        ("coq", "coq", sorted(theorems.stages(DOCS.parent))),
    ],
)
def test_every_stage_of_the_proofs_has_its_page(folder, directive, stages):
    found = {}
    for path in (DOCS / folder).glob("*.rst"):
        found[path.stem] = f".. {directive}:: {path.stem}\n" in path.read_text(encoding="utf-8")
    assert {stage for stage, made in found.items() if made} == set(stages)
