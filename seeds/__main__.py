"""Create the demo merchants, and print their ids, keys and secrets as one JSON object: `python -m seeds [SCENARIOS.toml]`."""

import asyncio
import sys
from pathlib import Path

import msgspec

from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.engine import db_errors_as_503
from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.server.runtime.ready import SeedKeys
from seeds.demo import seed


def main() -> None:
    """Seed the database. If that fails, print one line with the reason and exit with code 1."""
    scenarios = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        seeded = asyncio.run(_seed(scenarios))
    except (SettingsError, ValueError, Problem) as error:
        sys.exit(f"seeds: {error}")
    sys.stdout.write(msgspec.json.encode(seeded).decode() + "\n")


async def _seed(scenarios: Path | None) -> SeedKeys:
    async with db_errors_as_503():
        return await seed(Settings.load(), scenarios)


if __name__ == "__main__":
    main()
