"""A URL that the sender could never use is refused on registration, and the error names its field."""

import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sandbox.webhooks.outbound.url_check import url_error
from tests.harness.names import StubResolver
from tests.harness.raw_server import LOOPBACK, OK, responding_with, sending, serving
from tests.harness.world import Stack, World

HOST = "must name a host in letters"
PORT = "must have a port from 1 to 65535"
IPV4 = "must write an IPv4 address as four decimal numbers"
EMPTY = "must name a host without empty labels"
SCHEME = "must begin with http:// or https:// and name a host"
USER = "must not contain a user name or password"
IPV6 = "must name a valid IPv6 address"
UNREADABLE = "is not a valid URL: its host is not valid"

REFUSED = [
    # Missing or other scheme, missing host
    ("", SCHEME), ("nonsense", SCHEME), ("/hook", SCHEME), ("//example.com/", SCHEME), ("example.com", SCHEME),
    ("http:example.com", SCHEME), ("http:/example.com", SCHEME), ("http:\\\\example.com", SCHEME),
    ("ftp://example.com/", SCHEME), ("file:///etc/passwd", SCHEME), ("javascript:alert(1)", SCHEME),
    ("http://", SCHEME), ("http:///path", SCHEME), ("http://?query", SCHEME), ("http://#fragment", SCHEME),
    ("http://:80/", SCHEME),
    # IPv4 addresses in unusual forms, which some parsers read as 127.0.0.1
    ("http://127.1", IPV4), ("http://2130706433", IPV4), ("http://0177.0.0.1", IPV4), ("http://0x7f.0.0.1", IPV4),
    ("http://0x7f000001", IPV4), ("http://0X7F.1", IPV4), ("http://127.0.0.0x1", IPV4), ("http://0", IPV4),
    ("http://127.0.0.1.", IPV4), ("http://127.0.0.01", IPV4), ("http://127.0.0.256", IPV4), ("http://1.2.3.4.5", IPV4),
    ("http://1.2.3", IPV4), ("http://017700000001", IPV4), ("http://example.1", IPV4), ("http://example.0x", IPV4),
    ("https://2130706433:8443/x", IPV4),
    # Labels
    ("http://a..b/", EMPTY), ("http://.example.com/", EMPTY), ("http://./", EMPTY), ("http://../", EMPTY),
    ("http://example.com../", EMPTY), (f"http://{'a' * 64}.com/", HOST), (f"http://{'a.' * 126}ab/", HOST),
    ("http://*/", HOST), ("http://a,b/", HOST), ("http://(a)/", HOST), ("http://a$b/", HOST), ("http://a~b/", HOST),
    ("http://%31%32%37.0.0.1/", IPV4), ("http://a%2eb/", HOST), ("http://%00/", HOST),
    ("http://a\\b/", UNREADABLE), ("http://example.com\\@127.0.0.1/", USER),
    ("http://xn--a/", UNREADABLE), ("http://xn--/", UNREADABLE),
    # Ports
    ("http://example.com:0/", PORT), ("http://example.com:65536/", PORT), ("http://example.com:99999/", PORT),
    ("http://example.com:-1/", PORT), ("http://example.com:+80/", PORT), ("http://example.com:8_0/", PORT),
    ("http://example.com:http/", PORT), ("http://example.com:80:80/", PORT), ("http://example.com:000080/", PORT),
    ("http://127.0.0.1:0/", PORT), ("http://[::1]:0/", PORT), ("http://[::1]:+1/", PORT), ("http://::1/", PORT),
    # User names
    ("http://user@example.com/", USER), ("http://user:password@example.com/", USER), ("http://:@example.com/", USER),
    ("http://@example.com/", USER), ("http://a@b@example.com/", USER),
    # IPv6
    ("http://[::1/", UNREADABLE), ("http://[]/", UNREADABLE), ("http://[::1]x/", UNREADABLE),
    ("http://[127.0.0.1]/", UNREADABLE), ("http://[v1.a]/", IPV6), ("http://[1::2::3]/", IPV6),
    ("http://[::1%lo]/", "must name an IPv6 address without a zone"),
    ("http://[::1%25lo]/", "must name an IPv6 address without a zone"),
    # Addresses that are never allowed
    ("http://169.254.169.254/latest", "cannot be connected to: address 169.254.169.254"),
    # Python 3.13 and later write this address as ::ffff:169.254.169.254, earlier versions as ::ffff:a9fe:a9fe.
    ("http://[::ffff:169.254.169.254]/", "cannot be connected to: address ::ffff:"),
    ("http://10.0.0.1/", "cannot be connected to: address 10.0.0.1 is private"),
    ("http://0.0.0.0/", "cannot be connected to: address 0.0.0.0 is unspecified"),
]  # fmt: skip
ACCEPTED = [
    "http://example.com", "https://example.com/", "HTTPS://EXAMPLE.COM/", "http://example.com:8080/a?b=c#d",
    "http://example.com:/", "http://example.com:080/", "http://example.com./", "http://localhost:9000/hook", "http://service/",
    "http://my_service:80/", "http://xn--mnchen-3ya.de/", "http://1.example/", "http://127.0.0.1.example/", "http://0x7f.example/",
    "http://127.0.0.1/", "http://127.0.0.1:9000", "http://[::1]:9000/", "http://[::ffff:127.0.0.1]/", "http://8.8.8.8/",
    "http://example.com/a@b", "http://example.com/?u=a:b@c", "http://example.com?x", "http://example.com/%zz",
    f"http://{'a' * 63}.com/",
]  # fmt: skip


@pytest.mark.parametrize(("url", "error"), REFUSED)
def test_an_unusable_url_is_refused(url: str, error: str) -> None:
    assert (url_error(url, LOOPBACK) or "").startswith(error)


@pytest.mark.parametrize("url", ACCEPTED)
def test_other_urls_are_accepted(url: str) -> None:
    assert url_error(url, LOOPBACK) is None


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_checking_any_url_does_not_raise(text: str) -> None:
    for url in (text, f"http://{text}", f"http://[{text}]/"):
        assert isinstance(url_error(url, ()), str | None)


HOSTS = st.one_of(
    st.from_regex(r"[A-Za-z0-9._~!$&'()*+,;=%\[\]:-]{1,20}", fullmatch=True),
    st.from_regex(r"(0x)?[0-9a-f]{1,10}(\.[0-9a-fx]{1,4}){0,4}\.?", fullmatch=True),
    st.from_regex(r"(xn--|a|-|_|7)[a-z0-9-]{0,12}(\.[a-z0-9_-]{0,6}){0,3}", fullmatch=True),
)


@given(HOSTS, st.from_regex(r"(/[!-~]{0,20})?", fullmatch=True))
@example("xn--mnchen-3ya.de", "/")
@example("example.com.", "/%zz")
async def test_an_accepted_url_can_be_posted_to(host: str, rest: str) -> None:
    """Every name resolves to a server on loopback here."""
    async with serving(responding_with(OK)) as peer, sending(resolver=StubResolver(default="127.0.0.1")) as sender:
        url = f"http://{host}:{peer.port}{rest}"
        assume(url_error(url, LOOPBACK) is None)
        # Skip literal addresses: the server here does not listen on them.
        assume(not host.startswith("[") and not host.replace(".", "").isdigit())
        result = await sender.send(url, b"{}", {})
    assert (result.status, result.error) == (200, None)


def problem_fields(response: httpx.Response) -> tuple[int, str, list[str]]:
    """Return the status and code of a problem, and the fields that its `errors` name."""
    problem = response.json()
    return response.status_code, problem["code"], [error["field"] for error in problem.get("errors", [])]


@pytest.mark.parametrize("url", ["http://127.1", "http://2130706433", "http://0177.0.0.1", "http://a..b/", "http://h:0/"])
def test_the_problem_names_the_field_with_the_invalid_url(stack: Stack, world: World, url: str) -> None:
    created = httpx.post(
        f"{stack.api_url}/sandbox/v1/merchants",
        json={"name": "test", "webhook_url": url},
        headers={"X-ADMIN-KEY": stack.admin_key},
        timeout=60,
    )
    assert problem_fields(created) == (400, "VALIDATION_ERROR", ["webhook_url"])
    assert problem_fields(world.post("/api/v1/webhook-endpoints", {"url": url})) == (400, "VALIDATION_ERROR", ["url"])
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/"}).json()
    changed = world.patch(f"/api/v1/webhook-endpoints/{endpoint['id']}", {"url": url})
    assert problem_fields(changed) == (400, "VALIDATION_ERROR", ["url"])
    assert problem_fields(world.client.put("/aggregator/v1/source", json={"url": url})) == (
        400,
        "VALIDATION_ERROR",
        ["url"],
    )
