"""The marker that ties a test to a claim: ``@lemma("name")``, with a name from ``proofs/ledger.toml``."""

import pytest

lemma = pytest.mark.lemma
