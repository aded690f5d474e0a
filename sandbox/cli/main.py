"""The command `psp`: a list of the commands, each of which is written in a module of its own."""

from importlib.metadata import version
from typing import Annotated

import typer

from sandbox.cli import (
    aggregator,
    audit,
    bench,
    bulk_credit,
    clock,
    doctor,
    down,
    events,
    faults,
    ipn,
    listen,
    payouts,
    run,
    sales,
    scenarios,
    settings,
    up,
    users,
    worlds,
)

app = typer.Typer(
    name="psp",
    help="A payment service provider for tests: payouts, ledger, scenarios, signed webhooks.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("up")(up.up)
# What follows the first word of the command belongs to the command, with or without --.
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("down")(down.down)
app.command("doctor")(doctor.doctor)
app.command("audit")(audit.audit)
app.command("bulk-credit")(bulk_credit.bulk_credit)
app.command("reset")(worlds.reset)
app.command("drain")(clock.drain)
app.command("trigger")(events.trigger)
app.command("listen")(listen.listen)
app.add_typer(payouts.app, name="payouts")
app.add_typer(users.app, name="users")
app.add_typer(sales.app, name="sales")
app.add_typer(aggregator.app, name="aggregator")
app.add_typer(clock.app, name="clock")
app.add_typer(worlds.app, name="snapshots")
app.add_typer(events.app, name="events")
app.add_typer(scenarios.app, name="scenarios")
app.add_typer(settings.app, name="settings")
app.add_typer(faults.app, name="faults")
app.add_typer(bench.app, name="bench")
app.add_typer(ipn.app, name="ipn")


def _print_version(wanted: bool) -> None:
    if wanted:
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
    app()


if __name__ == "__main__":
    main()
