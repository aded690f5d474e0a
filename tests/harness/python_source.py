"""Parse the source of Python modules."""

import ast
import gc
from pathlib import Path


def parse_python(source: str | Path) -> ast.Module:
    """Return the tree of a module, given as text or as the path of its file.

    Nothing is collected meanwhile: a collected task may log a traceback, whose formatting also parses source, and Python 3.11.7
    raises SystemError when one parse runs inside another (CPython issue 106905).
    """
    text = source if isinstance(source, str) else source.read_text("utf-8")
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if was_enabled:
            gc.enable()
