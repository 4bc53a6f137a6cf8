"""Is the plugin there that makes the tests of a target?  Without it (a tree that is not installed) there are none."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave `test_target` out where nothing would give it a target."""
    if collection_path.name == "test_target.py" and not config.pluginmanager.hasplugin("entmax_ref.conformance.plugin"):
        return True
    return None
