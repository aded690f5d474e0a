"""Imports only go down and have no cycles, and pure modules import no I/O, clock or randomness, even indirectly."""

import re
from collections import Counter
from functools import cache
from typing import Final

import pytest

from tests.harness.imports import (
    LAYERS,
    PACKAGES,
    ROOT,
    SLICED,
    TOP_LEVEL,
    Import,
    api_imports,
    cycles,
    folder_arrows,
    folder_of,
    impurities,
    internal_imports,
    is_pure,
    layers_needed,
    read_sources,
    relative_imports,
    slice_arrows,
    upward_imports,
)

SOURCES: Final = read_sources()


@cache
def imports() -> set[Import]:
    """Return all imports. Every process of a run collects this file; only one has to read the sources."""
    return internal_imports(SOURCES)


def test_imports_only_go_down() -> None:
    assert upward_imports(imports()) == set()


def test_every_folder_is_in_one_layer() -> None:
    in_layers = Counter(folder for layer in LAYERS for folder in layer.folders)
    assert in_layers == Counter({folder_of(module) for module in SOURCES if module != "sandbox"})


def test_no_more_layers_are_declared_than_the_imports_need() -> None:
    assert layers_needed(folder_arrows(imports())) == len(LAYERS)


@pytest.mark.parametrize("folder", SLICED)
def test_the_slices_of_a_folder_have_no_cycles_and_are_at_most_four_deep(folder: str) -> None:
    arrows = slice_arrows(imports(), folder)
    assert cycles(arrows) == []
    assert 2 <= layers_needed(arrows) <= 4


def test_folders_have_no_import_cycles() -> None:
    assert cycles(folder_arrows(imports())) == []


def test_files_have_no_import_cycles_not_even_for_types() -> None:
    assert cycles((one.importer, one.imported) for one in imports()) == []


@pytest.mark.parametrize("folder", TOP_LEVEL)
def test_every_top_level_folder_is_read(folder: str) -> None:
    assert any(folder_of(module) == folder or module.startswith(f"{folder}.") for module in SOURCES)


def test_there_are_no_relative_imports_but_in_examples_which_users_copy() -> None:
    assert [module for module in relative_imports(SOURCES) if not module.startswith("examples.")] == []


def test_only_the_server_imports_apis_of_other_folders() -> None:
    assert api_imports(imports()) == set()


def test_pure_modules_import_no_io_clock_or_randomness() -> None:
    assert len([module for module, text in SOURCES.items() if is_pure(module, text)]) > 80
    assert impurities(SOURCES) == []


def test_what_runs_in_the_user_s_process_imports_none_of_the_sandbox_s_packages() -> None:
    found = [one for one in imports() if one.importer.startswith("psp_sandbox.")]
    assert len(found) > 100
    assert {folder_of(one.imported) for one in found} == {"psp_sandbox"}


def test_only_two_files_write_accounts_and_transfers() -> None:
    write = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+(accounts|transfers)\b")
    paths = [path for package in PACKAGES for ending in ("py", "sql") for path in (ROOT / package).rglob(f"*.{ending}")]
    # The benchmarks have their own statements, to measure what the database can do without the product.
    searched = [path for path in paths if not {"migrations", "benches"} & {*path.relative_to(ROOT).parts}]
    assert sorted(path.relative_to(ROOT).as_posix() for path in searched if write.search(path.read_text())) == [
        "sandbox/unit_of_work/ledger.sql",
        "sandbox/unit_of_work/write.sql",
    ]


def upward(sources: dict[str, str]) -> list[str]:
    return sorted(map(str, upward_imports(internal_imports(sources))))


@pytest.mark.parametrize(
    "line",
    [
        "import sandbox.payouts.service",
        "from sandbox.payouts import service",
        "from sandbox.payouts.service import PayoutService",
        "def late() -> None:\n    from sandbox.payouts.service import PayoutService",
        "if TYPE_CHECKING:\n    from sandbox.payouts.service import PayoutService",
    ],
)
def test_the_checker_finds_an_upward_import_in_every_form(line: str) -> None:
    sources = {"sandbox.domain.money": line, "sandbox.payouts.service": ""}
    assert upward(sources) == ["sandbox.domain.money → sandbox.payouts.service"]
    assert upward({"sandbox.domain.money": "", "sandbox.payouts.service": "import sandbox.domain.money"}) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("sandbox.domain.ledger", "sandbox.infrastructure.db.rows"),
        ("sandbox.domain.ledger", "sandbox.infrastructure.settings"),
        ("sandbox.infrastructure.db.rows", "sandbox.unit_of_work.ledger"),
        ("sandbox.infrastructure.db.rows", "sandbox.payouts.service"),
        ("sandbox.unit_of_work.ledger", "sandbox.http.request"),
        ("sandbox.unit_of_work.ledger", "sandbox.payouts.service"),
        ("sandbox.unit_of_work.ledger", "sandbox.server.app"),
        ("sandbox.http.paging", "sandbox.payouts.service"),
        ("sandbox.payouts.service", "worker.main"),
        ("sandbox.server.app", "sandbox.cli.main"),
        ("sandbox.payouts.service", "sandbox.webhooks.endpoints.service"),
        ("seeds.demo", "worker.main"),
        ("sandbox.cli.main", "tests.harness.world"),
        ("psp_sandbox.application", "sandbox.cli.main"),
        ("tests.harness.world", "ci.contract_hooks"),
        ("sandbox.payouts.service", "sandbox.a_folder_without_a_layer.service"),
    ],
)
def test_the_checker_finds_a_forbidden_import_in_the_real_tree(importer: str, imported: str) -> None:
    changed = {**SOURCES, importer: f"{SOURCES[importer]}\nimport {imported}\n"}
    assert upward_imports(internal_imports(changed)) == {Import(importer, imported)}


def test_the_checker_finds_cycles_of_files_and_of_folders() -> None:
    sources = {
        "sandbox.payouts.service": "import sandbox.payouts.steps",
        "sandbox.payouts.steps": "if TYPE_CHECKING:\n    import sandbox.payouts.waiting",
        "sandbox.payouts.waiting": "import sandbox.payouts.service, sandbox.users.service",
        "sandbox.users.service": "import sandbox.worlds.clock.service",
        "sandbox.worlds.clock.due": "import sandbox.payouts.service",
        "sandbox.worlds.clock.service": "",
    }
    imports = internal_imports(sources)
    files = cycles((one.importer, one.imported) for one in imports)
    assert files == [["sandbox.payouts.service", "sandbox.payouts.steps", "sandbox.payouts.waiting"]]
    assert cycles(folder_arrows(imports)) == [["payouts", "users", "worlds"]]
    assert layers_needed(folder_arrows(imports)) == 1
    assert layers_needed([("cli", "server"), ("server", "db"), ("cli", "db")]) == 3


def test_the_checker_finds_how_deep_the_slices_of_a_layer_are() -> None:
    sources = {
        "sandbox.users.sales.service": "import sandbox.users.service, sandbox.domain.money",
        "sandbox.users.service": "import sandbox.users.vendor_feed.service",
        "sandbox.users.vendor_feed.service": "import sandbox.users.vendor_feed.pages",
        "sandbox.users.vendor_feed.pages": "",
        "sandbox.domain.money": "",
    }
    arrows = slice_arrows(internal_imports(sources), "users")
    assert arrows == {("sandbox.users.sales", "sandbox.users"), ("sandbox.users", "sandbox.users.vendor_feed")}
    assert layers_needed(arrows) == 3


def test_the_checker_finds_imports_between_scripts_of_a_folder_that_is_no_package() -> None:
    scripts = {"openapi.generate": "from client_types import Schema", "openapi.client_types": "import json"}
    assert internal_imports(scripts) == {Import("openapi.generate", "openapi.client_types")}
    package = {"sandbox.users": "", "sandbox.users.upload": "import csv", "sandbox.users.csv": ""}
    assert internal_imports(package) == set()


@pytest.mark.parametrize(
    ("text", "impurity"),
    [
        ("import asyncio", "imports asyncio"),
        ("import time", "imports time"),
        ("import urllib.request", "imports urllib.request"),
        ("from os import path", "imports os.path"),
        ("from uuid import uuid4", "imports uuid.uuid4"),
        ("def late() -> None:\n    import random", "imports random"),
        ("async def wait() -> None: ...", "is asynchronous in line 1"),
        ("from datetime import datetime\nat = datetime.now()", "uses datetime.datetime.now in line 2"),
        ("from datetime import datetime as dt\nat = dt.utcnow", "uses datetime.datetime.utcnow in line 2"),
        ("import datetime as dt\nat = dt.date.today()", "uses datetime.date.today in line 2"),
        ("text = open('x').read()", "uses open in line 1"),
        ("def read(path: Path) -> str:\n    return path.read_text()", "uses path.read_text in line 2"),
    ],
)
def test_the_checker_finds_direct_and_indirect_impurities(text: str, impurity: str) -> None:
    sources = {"sandbox.domain.a": "from sandbox.domain.b import x", "sandbox.domain.b": "", "sandbox.cli.main": "import time"}
    assert impurities(sources) == []
    alone = impurities({**sources, "sandbox.domain.a": text})
    assert alone == [f"sandbox.domain.a: {impurity}"]
    through_others = {**sources, "sandbox.domain.b": "import sandbox.other.c", "sandbox.other.c": text}
    assert f"sandbox.domain.a → sandbox.domain.b → sandbox.other.c: {impurity}" in impurities(through_others)
    through_a_package = {**sources, "sandbox.domain.b": "import sandbox.other.c", "sandbox.other.c": "", "sandbox.other": text}
    assert f"sandbox.domain.a → sandbox.domain.b → sandbox.other: {impurity}" in impurities(through_a_package)


def test_a_module_outside_the_domain_is_pure_if_its_docstring_says_so() -> None:
    for docstring in ("Rules of users. Pure.", "Rules of users. Pure: the time is passed in.", "Rules.\n\nAll of them.\nPure."):
        assert impurities({"sandbox.users.rules": f'"""{docstring}"""\nimport time'}) == ["sandbox.users.rules: imports time"]
    assert impurities({"sandbox.users.rules": '"""Rules of users. Pure, but for the time."""\nimport time'}) == []


def test_the_checker_allows_impure_imports_for_type_checking() -> None:
    assert impurities({"sandbox.domain.a": "if TYPE_CHECKING:\n    from asyncio import Task"}) == []


@pytest.mark.parametrize("module", ["sandbox.domain.ledger", "sandbox.payouts.requests", "sandbox.payouts.scenarios.rules"])
def test_the_checker_finds_an_impurity_in_the_real_tree(module: str) -> None:
    changed = {**SOURCES, module: f"{SOURCES[module]}\nimport asyncio\n"}
    assert f"{module}: imports asyncio" in impurities(changed)
    indirect = {**SOURCES, module: f"{SOURCES[module]}\nfrom sandbox.infrastructure.db.engine import connection\n"}
    assert f"{module} → sandbox.infrastructure.db.engine: imports asyncpg" in impurities(indirect)


def test_the_checker_finds_relative_imports_and_apis_that_import_each_other() -> None:
    assert relative_imports({"sandbox.users.api": "from .service import x"}) == ["sandbox.users.api"]
    sources = {
        "sandbox.users.api": "import sandbox.payouts.simulate_api",
        "sandbox.server.app": "import sandbox.users.api",
        "sandbox.payouts.api": "import sandbox.payouts.simulate_api",
    }
    assert api_imports(internal_imports(sources)) == {Import("sandbox.users.api", "sandbox.payouts.simulate_api")}
