"""Do the examples of the documentation run as they stand?"""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["import_the_reference", "oracle", "train", "tutorial"])
def test_the_examples_of_a_page_run(page):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(str(DOCS / f"{page}.rst"), module_relative=False, optionflags=options)
    assert tried >= 3 and failed == 0
