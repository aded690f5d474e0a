"""Pictures of the console, for the guide and to look at.

`python -m tests.harness.pictures` renews those in `docs/images`. With a folder, every page is taken there in both widths
and both themes, and sheets of them; further words keep only pages whose path contains one of them.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page

from sandbox.server.console.pages import PAGES
from tests.harness.browser import Browsing, chromium
from tests.harness.console_world import fill
from tests.harness.own_sandbox import own_sandbox
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import World

WIDTHS: Final = (1440, 390)
SIZE: Final = (1280, 860)
"""The size of the guide's pictures."""
PHONE: Final = (390, 860)
_IMAGES: Final = Path(__file__).parent.parent.parent / "docs/images"
_GUIDE: Final = {
    "overview": "",
    "payout": "/payouts/{payout_id}",
    "delivery": "/webhooks/deliveries/{delivery_id}",
    "new-payout": "/payouts/new?account_number=12345678900012&amount=1500.00",
    "catalogue": "/catalogue",
    "clock": "/world",
    "faults": "/world/faults",
    "endpoint": "/webhooks/{endpoint_id}",
    "certify": "/webhooks/certify/{test_id}",
    "approvals": "/users/approvals",
    "bulk-credit": "/users/bulk-credit/{activity_id}",
    "request": "/requests/{entry_id}",
}
"""The guide's pictures: the end of the file's name, and the page."""
_STATES: Final = (
    "/payouts?drawn=yes", "/ledger/audit?run=now", "/world?upto=2", "/world/faults/new?kind=latency", "/search?q=INV",
    "/payouts?q=none",
)  # fmt: skip
"""Pages that show more with a query."""
_BANKS: Final = ("HBL", "MCB", "UBL")
_PER_SHEET: Final = 8


def fill_for_pictures(world: World, receiver: Receiver) -> dict[str, str]:
    """Fill a merchant as after some days of tests, its clock frozen, with work that is due. Return the ids of its pages."""

    def respond(request: Received) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, b"down") if b"payout.failed" in request.body else (200, {}, b"ok")

    ids = fill(world, receiver, plain=True)
    receiver.respond = respond
    world.post("/sandbox/v1/clock/freeze")
    world.post("/api/v1/webhook-endpoints", {"url": f"{receiver.url}/books", "description": "Books"})
    number = 1002
    for suffixes in (("0001", "0001", "0003", "0012", "0007"), ("0001", "0007", "0011", "0005"), ("0001", "0001", "0004")):
        for place, suffix in enumerate(suffixes):
            amount = f"{1250 * (place + 1) + number % 7}.50"
            created = world.create_payout(
                suffix, merchant_reference=f"INV-{number}", amount=amount, bank_code=_BANKS[number % 3]
            )
            if suffix == "0007":
                ids["payout_id"] = created["id"]
            number += 1
        world.post("/api/v1/payouts", world.payout_body("0001", merchant_reference="INV-1002"))
        world.post("/sandbox/v1/clock/advance", {"seconds": 86_400})
    world.post("/api/v1/payouts", {**world.payout_body("0001"), "bank_code": "NONE"})
    world.post("/api/v1/payouts", world.payout_body("0001", amount="99000000.00"))
    world.create_payout("0001", merchant_reference=f"INV-{number}", amount="4100.00", requires_approval=True)
    for suffix in ("0001", "0003", "0007", "0012"):
        number += 1
        world.create_payout(suffix, merchant_reference=f"INV-{number}", amount="1800.00")
    world.post("/sandbox/v1/clock/advance", {"seconds": 2})
    test = world.post("/sandbox/v1/receiver-tests", {"url": receiver.url, "secret": world.webhook_secret}).json()["id"]
    until(lambda: world.get(f"/sandbox/v1/receiver-tests/{test}").json()["status"] != "RUNNING", seconds=120)
    ids["test_id"] = test
    shown = world.get("/api/v1/webhook-deliveries", payout_id=ids["payout_id"]).json()["data"]
    endpoint = world.get("/api/v1/webhook-endpoints").json()["data"]
    ids["endpoint_id"] = next(found["id"] for found in endpoint if found["description"] == "Books")
    ids["delivery_id"] = next(found["id"] for found in shown if found["attempt_count"] > 1)
    ids["event_id"] = shown[0]["event_id"]
    refused = world.get("/sandbox/v1/requests", status="422").json()["data"]
    ids["entry_id"] = refused[0]["id"] if refused else ids["entry_id"]
    return ids


def _take(page: Page, path: str, size: tuple[int, int], file: Path, *, whole: bool) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(path)
    page.screenshot(path=file, full_page=whole)


def _sheets(browser: Browser, folder: Path, files: Sequence[Path]) -> None:
    """Put several pictures on each sheet, with their names."""
    page = browser.new_page(viewport={"width": 1900, "height": 1000})
    for group in ("1440-light", "1440-dark", "390-light", "390-dark"):
        members = [file for file in files if file.stem.endswith(group)]
        count = _PER_SHEET if "390" not in group else 2 * _PER_SHEET
        width = 460 if "390" not in group else 225
        for start in range(0, len(members), count):
            cells = "".join(
                f'<figure style="margin:0;width:{width}px;font:12px sans-serif">{file.stem}<img src="{file.name}" '
                f'style="width:100%;max-height:760px;object-fit:cover;object-position:top"></figure>'
                for file in members[start : start + count]
            )
            sheet = folder / "sheet.html"
            sheet.write_text(f'<body style="display:flex;flex-wrap:wrap;gap:8px;background:#888">{cells}')
            page.goto(sheet.as_uri())
            page.screenshot(path=folder / f"sheet-{group}-{start // count}.png", full_page=True)


def _all_pages(browser: Browser, world: World, ids: dict[str, str], folder: Path, wanted: Sequence[str]) -> None:
    paths = [page.path for page in PAGES if page.audience == "merchant" and not page.path.endswith(("/junit", ".svg"))]
    files = []
    browsing = Browsing(browser, world.stack.api_url)
    page = browsing.open("/console", world.api_key)
    for path in (*paths, *_STATES):
        if wanted and not any(word in path for word in wanted):
            continue
        name = re.sub(r"\W+", "-", path).strip("-") or "overview"
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal in a loop
            for width in WIDTHS:
                file = folder / f"{name}-{width}-{theme}.png"
                _take(page, f"/console{path.format(**ids)}", (width, 900), file, whole=True)
                files.append(file)
    _sheets(browser, folder, files)


def main() -> None:
    """Take the guide's pictures; or those of all pages, into the folder that the first argument names."""
    with (
        tempfile.TemporaryDirectory() as name,
        own_sandbox(Path(name), "--ephemeral") as (_, stack),
        Receiver() as receiver,
        World.create(stack, name="Bazaar", opening_balance="2500000.00") as world,
        chromium() as browser,
    ):
        ids = fill_for_pictures(world, receiver)
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
            folder.mkdir(parents=True, exist_ok=True)
            _all_pages(browser, world, ids, folder, sys.argv[2:])
            return
        page = Browsing(browser, stack.api_url).open("/console", world.api_key)
        for end, path in _GUIDE.items():
            _take(page, f"/console{path.format(**ids)}", SIZE, _IMAGES / f"console-{end}.png", whole=False)
        _take(page, f"/console/payouts/{ids['payout_id']}", PHONE, _IMAGES / "console-payout-phone.png", whole=False)


if __name__ == "__main__":
    main()
