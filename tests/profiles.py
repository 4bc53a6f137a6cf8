"""How many examples does a property test draw?  The number it states, times ``EXAMPLES`` of the environment."""

import os

from hypothesis import settings

SCALE = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Return settings that draw ``count`` examples, or more of them where ``EXAMPLES`` asks for it."""
    return settings(max_examples=count * SCALE)
