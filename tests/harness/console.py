"""A console session over HTTP, as a browser keeps it, without a browser."""

import re
from html import unescape
from types import TracebackType
from typing import Any

import httpx

_TOKEN = re.compile(r'name="_csrf" value="([^"]+)"')


class ConsoleClient:
    """Opens pages and submits forms with one cookie jar."""

    def __init__(self, api_url: str) -> None:
        self.url = api_url
        self.http = httpx.Client(base_url=api_url, headers={"Origin": api_url}, follow_redirects=True, timeout=60)
        self.token = ""
        self.home = "/console"
        """The path of the first page of the merchant that was signed in to last."""

    def __enter__(self) -> "ConsoleClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()

    def sign_in(self, key: str) -> httpx.Response:
        """Sign in with a key, and return the page that follows."""
        self.get("/console/sign-in")
        page = self.keep_token(self.post("/console/sign-in", api_key=key))
        self.home = page.url.path if page.url.path.startswith("/console/m/") else "/console"
        return page

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Open a page, and keep the token of its forms."""
        return self.keep_token(self.http.get(path, **options))

    def keep_token(self, response: httpx.Response) -> httpx.Response:
        """Remember the token of a page's forms, for the next `post`."""
        found = _TOKEN.search(response.text)
        self.token = unescape(found[1]) if found else self.token
        return response

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        """Submit a form with this session's token. In names of fields, __ stands for a dot."""
        data = {"_csrf": self.token, **{name.replace("__", "."): value for name, value in fields.items()}}
        return self.http.post(path, data={name: value for name, value in data.items() if value is not None}, headers=headers)

    def path(self, page: str) -> str:
        """Return the path of the signed-in merchant's page, such as `/console/payouts`."""
        return page if page.startswith(self.home) else self.home + page.removeprefix("/console")

    def act(self, operation_id: str, page: str = "/console", **fields: str) -> httpx.Response:
        """Submit a form of a page, such as `/console/payouts`, that calls an API operation."""
        if "_done" in fields:
            fields["_done"] = self.path(fields["_done"])
        return self.post(f"{self.home}/actions/{operation_id}", _page=self.path(page), **fields)
