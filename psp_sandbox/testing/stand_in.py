"""A receiver that answers webhooks as the receivers of a recorded world did."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

_KEPT_HEADERS: Final = ("retry-after", "content-type")
Answer = tuple[int | None, Mapping[str, str], str]
"""Status, headers and body of a response; without a status, the connection is closed."""


class StandIn:
    """Listens on loopback. Each recorded URL has its own path."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        """Read the recorded answers from the tables of a bundle."""
        self._answers = _answers(tables)
        self._statuses: dict[tuple[str, str], list[int]] = {}
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._paths: dict[str, str] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, headers, content = owner.answer(self.path, body)
                if status is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content.encode())))
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url_for(self, recorded: str) -> str:
        """Return the URL that takes the place of a recorded one."""
        with self._lock:
            path = self._paths.setdefault(recorded, f"/{len(self._paths)}")
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def answer_with(self, recorded: str, statuses: Mapping[str, Sequence[int]]) -> None:
        """Answer the first webhooks of each event type at a recorded URL with these statuses, the others with 200.

        0 closes the connection without an answer.
        """
        with self._lock:
            self._statuses |= {(recorded, event_type): list(some) for event_type, some in statuses.items()}

    def recorded_url(self, text: str) -> str:
        """Return a text in which the stand-in's URLs are replaced by the recorded ones."""
        if f"http://127.0.0.1:{self._server.server_port}/" not in text:
            return text
        for recorded in sorted(self._paths, key=lambda url: -len(self._paths[url])):
            text = text.replace(json.dumps(self.url_for(recorded))[1:-1], json.dumps(recorded)[1:-1])
        return text

    def answer(self, path: str, body: bytes) -> Answer:
        """Return the answer to a webhook: what the recorded URL answered to this attempt, or 200."""
        with self._lock:
            url = next((recorded for recorded, own in self._paths.items() if own == path), "")
            name = _name(body.decode("utf-8", "replace"))
            waiting = self._statuses.get((url, _type(body)))
            if waiting:
                return waiting.pop(0) or None, {}, ""
            number = self._counts[url, name]
            self._counts[url, name] += 1
        answers = self._answers.get((url, name), ())
        return answers[number] if number < len(answers) else (200, {}, "")

    def __enter__(self) -> "StandIn":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answers(tables: Mapping[str, Any]) -> dict[tuple[str, str], list[Answer]]:
    if not tables:
        return {}
    events = {row["id"]: row["body"] for row in _rows(tables["events"])}
    events_of_deliveries = {row["id"]: row["event_id"] for row in _rows(tables["webhook_deliveries"])}
    found: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for row in sorted(_rows(tables["webhook_attempts"]), key=lambda row: (row["at"], row["attempt"])):
        body = events.get(events_of_deliveries.get(row["delivery_id"], ""), "")
        # If a fault decided the recorded answer, the same fault decides this one too.
        if not (row["fault_kind"] and row["status"] is None):
            headers = {name: value for name, value in row["response_headers"].items() if name.lower() in _KEPT_HEADERS}
            found[row["url"], _name(body)].append((row["status"], headers, row["response_body"]))
    return found


def _rows(table: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])


def _type(body: bytes) -> str:
    try:
        return str(json.loads(body)["type"])
    except (ValueError, KeyError, TypeError):
        return ""


def statuses_of(tables: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Return how recorded receivers answered the event types that they did not always accept: URL → type → statuses.

    0 stands for no answer. Attempts that a fault decided are left out.
    """
    types_of_events = {row["id"]: row["type"] for row in _rows(tables["events"])}
    types = {row["id"]: types_of_events.get(row["event_id"], "") for row in _rows(tables["webhook_deliveries"])}
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(_rows(tables["webhook_attempts"]), key=lambda row: (row["at"], row["attempt"])):
        if not (row["fault_kind"] and row["status"] is None) and row["delivery_id"] in types:
            found[row["url"]][types[row["delivery_id"]]].append(row["status"] or 0)
    refused = {
        url: {name: statuses for name, statuses in by_type.items() if any(status // 100 != 2 for status in statuses)}
        for url, by_type in found.items()
    }
    return {url: by_type for url, by_type in refused.items() if by_type}


def _name(body: str) -> str:
    """Return what identifies an event in both worlds, where its id may differ."""
    try:
        event = json.loads(body)
        data = event["data"]
        return json.dumps([event["type"], data.get("merchant_reference"), data.get("version"), data.get("status")])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
