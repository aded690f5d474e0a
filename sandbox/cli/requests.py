"""`psp requests`: how an API call of the journal is shown."""

import json
from typing import Any

from sandbox.cli.app import App

app = App("The journal of API calls.")


@app.shows("get")
def _whole(call: dict[str, Any]) -> str:
    return json.dumps(call, indent=2)
