"""Which commands does a page show?

``readme-block NAME`` copies from the README, ``command-help ARGS`` asks the program.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]


def _literal(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


class ReadmeBlock(SphinxDirective):
    """Show a block of the README word for word."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the block."""
        script = ROOT / ".ci" / "readme_block"
        self.env.note_dependency(str(ROOT / "README.md"))
        command = [sys.executable, str(script), self.arguments[0]]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [_literal(text.rstrip(), "bash")]


class CommandHelp(SphinxDirective):
    """Show what ``adasplash2 ARGS --help`` prints."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the help text."""
        from adasplash2.cli import main

        arguments = [*shlex.split(self.arguments[0] if self.arguments else ""), "--help"]
        printed = io.StringIO()
        # argparse takes the program's name from the running program, and colours from the terminal.
        argv, sys.argv = sys.argv, ["adasplash2"]
        try:
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                main(arguments)
        finally:
            sys.argv = argv
        text = f"$ {shlex.join(['adasplash2', *arguments])}\n{printed.getvalue().rstrip()}"
        return [_literal(text, "text")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("readme-block", ReadmeBlock)
    app.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
