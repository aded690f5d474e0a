"""The command `psp`: the list of its commands. Each is in its own module."""

from typing import Annotated

import typer

from sandbox.cli import (
    aggregator,
    audit,
    balance,
    bench,
    bulk_credit,
    clock,
    deliveries,
    directory,
    doctor,
    down,
    endpoints,
    events,
    faults,
    ipn,
    listen,
    merchants,
    payouts,
    requests,
    run,
    sales,
    scenarios,
    settings,
    trigger,
    up,
    users,
    worlds,
)
from sandbox.cli.app import App

app = App(
    "A payment service provider for tests: payouts, ledger, scenarios, signed webhooks.",
    root=True,
    name="psp",
    pretty_exceptions_show_locals=False,
)
app.command("up")(up.up)
# Everything after the command's first word belongs to that command, with or without --. It has its own exit codes.
app.command("run", context_settings={"allow_interspersed_args": False}, epilog=None)(run.run)
app.command("down")(down.down)
app.command("doctor")(doctor.doctor)
app.command("audit")(audit.audit)
app.command("bulk-credit")(bulk_credit.bulk_credit)
app.command("directory")(directory.directory)
app.command("verify-account")(directory.verify_account)
app.command("reset")(worlds.reset)
app.command("drain")(clock.drain)
app.command("trigger")(trigger.trigger)
app.command("listen")(listen.listen)
app.add_typer(payouts.app, name="payouts")
app.add_typer(balance.app, name="balance")
app.add_typer(users.app, name="users")
app.add_typer(sales.app, name="sales")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(events.app, name="events")
app.add_typer(requests.app, name="requests")
app.add_typer(clock.app, name="clock")
app.add_typer(scenarios.app, name="scenarios")
app.add_typer(faults.app, name="faults")
app.add_typer(worlds.app, name="snapshots")
app.add_typer(merchants.app, name="merchants")
app.add_typer(merchants.keys_app, name="keys")
app.add_typer(settings.app, name="settings")
app.add_typer(aggregator.app, name="aggregator")
app.add_typer(ipn.app, name="ipn")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # here, because it takes longer to load than all commands

        typer.echo(f"psp {version('psp-sandbox')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    # Set the name, because completion derives its environment variable from it.
    app(prog_name="psp")


if __name__ == "__main__":
    main()
