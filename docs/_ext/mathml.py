"""How does TeX get into the pages?  As MathML, which browsers draw themselves: no script and no network.

The conversion is docutils' own.
"""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def convert(node: nodes.math | nodes.math_block, as_block: bool) -> str:
    """Return MathML; a formula that docutils does not know is a warning, and shown as it was written."""
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("%s in %r", error, node.astext(), location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write inline math."""
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_display(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula."""
    translator.body.append(f'<div class="formula">{convert(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer = "mathml"`` selects it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
