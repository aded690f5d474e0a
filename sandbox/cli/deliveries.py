"""`psp deliveries`: how webhook deliveries and their attempts are shown."""

from typing import Any

from sandbox.cli.app import App

app = App("Webhook deliveries and their attempts.")


@app.shows("get")
def _with_attempts(delivery: dict[str, Any]) -> str:
    lines = [_line(delivery)]
    for attempt in delivery["attempts"]:
        fault = f"  fault {attempt['fault_kind']}" if attempt["fault_kind"] else ""
        result = " ".join(str(part) for part in (attempt["status"], attempt["error_class"], attempt["error"]) if part)
        phases = [
            f"{name} {attempt['timings'][f'{name}_ms']:g}"
            for name in ("dns", "connect", "tls", "first_byte")
            if attempt["timings"][f"{name}_ms"] is not None
        ]
        times = f"{attempt['duration_ms']} ms" + (f" ({', '.join(phases)})" if phases else "")
        lines.append(f"  {attempt['attempt']:>2}  {attempt['at']}  {result}  {times}{fault}")
    return "\n".join(lines)


@app.shows("explain")
def _explanation(explanation: dict[str, Any]) -> str:
    return "\n".join(explanation["summary"])


@app.shows("resend")
def _line(delivery: dict[str, Any]) -> str:
    return f"{delivery['id']}  {delivery['event_type']} to endpoint {delivery['endpoint_id']}  {delivery['status']}"
