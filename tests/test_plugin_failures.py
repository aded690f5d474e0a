"""When a test ends, the plugin checks its merchant. A failure says what is wrong, and the report shows what happened."""

import json

import pytest

from psp_sandbox.testing.receiver import listening_address
from tests.harness.plugin import Project
from tests.harness.world import Stack

pytest_plugins = ["pytester"]

BROKEN_APP = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"out of order"})
"""


@pytest.fixture
def project(pytester: pytest.Pytester, stack: Stack) -> Project:
    """Return a project without tests, with an application that refuses every webhook."""
    pytester.makepyfile(broken_app=BROKEN_APP)
    return Project(pytester, stack)


def test_a_failed_delivery_fails_its_own_test_unless_that_is_allowed(project: Project) -> None:
    result = project.run(
        """
        import pytest
        from broken_app import app

        def test_broken(psp, live_app):
            live_app(app)
            psp.pays("pending")

        @pytest.mark.psp(allow_failed_deliveries=True)
        def test_marked(psp, live_app):
            live_app(app)
            psp.pays("pending")

        def test_allowed(psp, live_app):
            live_app(app)
            psp.allow_failed_deliveries = True
            psp.pays("pending")

        def test_after(psp):
            psp.pays("success")
        """
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "* ERROR at teardown of test_broken *",
            "1 webhook delivery failed, and no later attempt succeeded.",
            "  - payout.created is PENDING after 1 attempt; the last one got 500 out of order from http://127.0.0.1:*/webhooks",
            "*allow_failed_deliveries=True*",
            "* PSP Sandbox: webhook deliveries (*) *",
        ]
    )


def test_a_delivery_that_succeeds_when_it_is_repeated_has_not_failed(project: Project) -> None:
    result = project.run(
        """
        def test_repeated(psp):
            with psp.fault("drop", on="payout.created", count=1):
                payout = psp.pays("success")
                psp.drain()
            assert psp.webhooks(payout).types == ["payout.processing", "payout.succeeded"]
            psp.advance("1m")
            assert psp.webhooks(payout).types == ["payout.created", "payout.processing", "payout.succeeded"]
        """
    )
    result.assert_outcomes(passed=1)


def test_a_fault_that_never_took_effect_fails_the_test_unless_that_is_allowed(project: Project) -> None:
    result = project.run(
        """
        import pytest

        def test_unhit(psp):
            with psp.fault("error", on="POST /payouts", status=503) as fault:
                pass
            assert not fault.hit

        def test_left_behind(psp):
            psp.request("POST", "/sandbox/v1/faults", {"target": "webhooks", "kind": "drop"})

        def test_allowed(psp):
            with psp.fault("drop", allow_unhit=True):
                pass

        @pytest.mark.psp(allow_unhit_faults=True)
        def test_marked(psp):
            with psp.fault("drop"):
                pass
        """
    )
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        [
            "* ERROR at teardown of test_unhit *",
            "1 fault never took effect, so the test has not tested what it was for.",
            "  - error on POST /api/v1/payouts",
            "* ERROR at teardown of test_left_behind *",
            "  - drop on webhooks",
        ]
    )


def test_a_corrupt_ledger_fails_the_test(project: Project) -> None:
    # The inner test changes a balance behind the sandbox's back.
    result = project.run(
        """
        import json, os
        from tests.harness.world import Stack

        def test_corrupt(psp):
            stack = Stack(**json.loads(os.environ["PSP_TEST_STACK"]))
            changed = "UPDATE accounts SET balance = balance + 0.01 WHERE merchant_id = $1 AND account = 'SETTLEMENT'"
            stack.execute(changed, psp.merchant_id)
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["The audit of the ledger found errors.", "  - *accounts_sum_to_zero*"])


def test_a_webhook_that_does_not_verify_fails_the_test_unless_a_fault_made_it_so(project: Project) -> None:
    result = project.run(
        """
        import httpx

        def test_forged(psp):
            endpoint = psp.request("GET", "/api/v1/webhook-endpoints").json()["data"][0]
            assert httpx.post(endpoint["url"], content=b"{}").status_code == 401

        def test_fault(psp):
            with psp.fault("wrong_key", on="payout.created", count=1):
                psp.pays("success")
                psp.drain()
            psp.advance("1m")
            assert len(psp.webhooks) == 3
            assert [one.problem for one in psp.webhooks.received] == ["no signature matches", None, None, None]
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["1 webhook arrived that did not verify.", "  - without an id: the header webhook-timestamp is missing"]
    )


def test_the_report_of_a_failed_test_shows_what_happened_and_no_secrets(project: Project) -> None:
    result = project.run(
        """
        import pathlib

        def test_fails(psp):
            payout = psp.pays("account_closed", reference="order-7")
            psp.drain()
            pathlib.Path("secrets").write_text(f"{psp.api_key} {psp.webhook_secret} {psp.ipn_secret}")
            assert payout.status == "SUCCESS"
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "* PSP Sandbox: API calls (*) *",
            "*  POST /api/v1/payouts → 201  [[]key *",
            '    sent: {"merchant_reference": "order-7",*',
            "* PSP Sandbox: payouts (the merchant's time) *",
            "order-7: 1500.00 PKR, FAILED, ACCOUNT_CLOSED (*)",
            "  *  - → PENDING  (api)",
            "  *  PROCESSING → FAILED  (worker)",
            "* PSP Sandbox: webhook deliveries (the merchant's time) *",
            "*  payout.failed SUCCEEDED (attempts: 1)  [[]order-7]",
            "The world was saved in *",
        ]
    )
    text = result.stdout.str()
    for secret in (project.pytester.path / "secrets").read_text().split():
        assert secret not in text
        assert secret not in _bundle(project)


def test_the_world_of_a_failed_test_is_saved_where_the_option_says(project: Project) -> None:
    code = """
        def test_fails(psp, tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            psp.pays("success")
            assert False

        def test_passes(psp):
            psp.pays("success")
        """
    project.run(code, "--psp-artifacts", "kept/worlds").assert_outcomes(failed=1, passed=1)
    assert [path.name for path in (project.pytester.path / "kept/worlds").iterdir()] == [
        "test_inner.py--test_fails.psp-world.json"
    ]
    bundle = json.loads(_bundle(project, "kept/worlds"))
    assert bundle["merchant"]["name"] == "test_inner.py::test_fails"
    assert len(bundle["tables"]["payouts"]["rows"]) == 1


def _bundle(project: Project, folder: str = ".psp-failures") -> str:
    (path,) = (project.pytester.path / folder).iterdir()
    return path.read_text()


def test_a_test_that_failed_is_not_checked_and_shows_its_evidence_once(project: Project) -> None:
    result = project.run(
        """
        import pytest
        from broken_app import app

        def test_fails(psp, live_app):
            live_app(app)
            psp.pays("pending")
            with psp.fault("drop"):
                assert False

        @pytest.fixture
        def broken(psp):
            psp.pays("success", reference="of-a-fixture")
            raise RuntimeError

        def test_of_a_broken_fixture(broken):
            pass

        @pytest.mark.xfail(strict=True)
        def test_is_expected_to_fail(psp):
            with psp.fault("drop"):
                assert False
        """
    )
    result.assert_outcomes(failed=1, errors=1, xfailed=1)
    assert result.stdout.str().count("PSP Sandbox: payouts") == 2
    result.stdout.fnmatch_lines(["of-a-fixture: *"])


def test_a_wrong_mark_is_explained(project: Project) -> None:
    wrong = {
        "balace='1.00'": "@pytest.mark.psp has no balace=. It takes balance, seed, frozen, *",
        "'1.00'": "@pytest.mark.psp takes keywords only, *",
        "balance=10.5": '*is money, and a float is not exact: write "10.50"*',
        "balance='ten'": "*must be an amount with at most two places*",
        "seed='7'": "*seed=...) must be a whole number*",
        "frozen='tomorrow'": "*frozen=...) must be True, False or a time*",
        "frozen='2030-01-01T00:00:00'": "*needs a time zone*",
        "allow_unhit_faults=1": "*must be True or False, not 1*",
    }
    tests = [f"@pytest.mark.psp({mark})\ndef test_{number}(psp): pass\n" for number, mark in enumerate(wrong)]
    result = project.run("import pytest\n" + "".join(tests))
    result.assert_outcomes(errors=len(wrong))
    result.stdout.fnmatch_lines(list(wrong.values()))
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--psp-url", "{url}", "--psp-admin-key", "wrong"],
            "*operator's key. Pass *--psp-admin-key or PSP_ADMIN_KEY. (401 *",
        ),
        (
            ["--psp-url", "http://127.0.0.1:1"],
            "POST http://127.0.0.1:1/sandbox/v1/merchants got no answer: *",
        ),
        (["--psp-url", "localhost:8000"], "*must be a URL such as http://127.0.0.1:8000, not 'localhost:8000'*"),
    ],
)
def test_a_sandbox_that_cannot_be_used_is_explained(project: Project, options: list[str], message: str) -> None:
    used = [option.format(url=project.stack.api_url) for option in options]
    result = project.run("def test_x(psp): pass", use=used)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


def test_the_report_shows_the_applications_calls_however_often_the_test_polls(project: Project) -> None:
    result = project.run(
        """
        import httpx

        def test_fails(psp):
            body = {"merchant_reference": "too-much", "amount": "9000000.00", "dest_type": "BANK", "bank_code": "HBL"}
            body["account_number"] = "12345678900001"
            headers = {"X-API-KEY": psp.api_key, "X-IDEMPOTENCY-KEY": "one"}
            httpx.post(f"{psp.url}/api/v1/payouts", json=body, headers=headers)
            for _ in range(60):
                psp.drain()
                list(psp.client.payouts.list(merchant_reference="too-much"))
            psp.next_payout(reference="too-much", timeout=0)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "* PSP Sandbox: API calls (the host's time) *",
            "*  POST /api/v1/payouts → 422  [[]key one]",
            "    sent: *too-much*",
            "    answer: *INSUFFICIENT_BALANCE*",
            "*  GET /api/v1/payouts?merchant_reference=too-much* → 200  [[]60 times]",
        ]
    )


def test_a_sandbox_elsewhere_reaches_the_test_by_the_address_that_is_named(project: Project) -> None:
    # 127.0.0.2 stands for the address by which a container reaches its host: nothing else of the plugin listens there.
    result = project.run(
        """
        def test_reached(psp):
            psp.pays("success")
            assert psp.webhooks.types[-1] == "payout.succeeded"
            assert {one.headers["host"].partition(":")[0] for one in psp.webhooks.received} == {"127.0.0.2"}

        def test_reached_application(psp, live_app):
            def app(environ, start_response):
                start_response("200 OK", [])
                return [environ["HTTP_HOST"].encode()]

            app = live_app(app)
            assert app.client.get("/").text.startswith("127.0.0.2:")
            psp.pays("success")
            assert {one.answer.partition(b":")[0] for one in psp.webhooks.received} == {b"127.0.0.2"}
        """,
        "--psp-webhook-host",
        "127.0.0.2",
    )
    result.assert_outcomes(passed=2)
    assert listening_address("192.0.2.254") == "127.0.0.1"  # not this machine's, so it is a container's name for it


def test_a_sandbox_that_cannot_reach_the_test_gets_a_hint(project: Project) -> None:
    # Like a sandbox in a container: nothing listens at the receiver's address there.
    result = project.run(
        """
        def test_unreachable(psp):
            psp._sandbox.receiver.close()
            psp.pays("success")
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*webhook deliver* failed*", "*in a container, 127.0.0.1 is the container*--psp-webhook-host*"]
    )
