"""The templates of the pages. Pure, except that it reads the templates and the stylesheet."""

from pathlib import Path
from typing import Final

import jinja2

from sandbox.domain.payout_states import STATUSES
from sandbox.http.code_spans import code_spans
from sandbox.server.console.texts import compact, delivery_state, host_time, hue, moment, money, pretty, short_id, tone

_TEMPLATES: Final = Path(__file__).parent / "templates"
_STYLES: Final = Path(__file__).parent / "static/console.css"


def create_templates(version: str) -> jinja2.Environment:
    """Return the environment of the console's templates. `version` is part of the static files' URLs."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "code": code_spans,
        "money": money,
        "tone": tone,
        "moment": moment,
        "short_id": short_id,
        "pretty": pretty,
        "compact": compact,
        "delivery_state": delivery_state,
    }
    found.globals |= {
        "static": lambda name: f"/console/static/{name}?v={version}",
        "host_time": host_time,
        "hue": hue,
        "STATUSES": STATUSES,
        "drawing_styles": _styles_of_drawings(_STYLES.read_text()),
    }
    return found


def _styles_of_drawings(styles: str) -> str:
    """Return the part of the stylesheet that a drawing needs in a file of its own: the light palette, and the trace's rules."""
    palette = styles[styles.index(":root {") : styles.index("@media")]
    rules = styles[styles.index("/* A trace:") : styles.index("/* In the page, not in the file")]
    return f"{palette}{rules}svg {{ background: var(--surface); }}"
