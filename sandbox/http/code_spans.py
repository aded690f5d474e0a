"""Show the API's sentences, in which `backticks` mark code, on HTML pages. Pure."""

import re
from typing import Any

from markupsafe import Markup, escape


def code_spans(text: Any) -> Markup:
    """Return the text as escaped HTML, with text in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- the text is escaped
