"""Embedded databases are copied from a template, which the first start makes. Without a usable one, initdb makes them."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sandbox.server.runtime import database_templates, postgres
from sandbox.server.runtime.postgres import Postgres
from sandbox.server.runtime.run_directories import RunDirectories, StartError, delete_trees, open_directories, store_user

Prepare = Callable[[], list[str]]
"""Makes the next database in a folder of its own, and returns the names of the programs that ran."""


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunDirectories]]:
    """The directories of all databases of the test, whose templates are in folders of its own."""
    own = postgres._COPIES
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(postgres, "templates_folder", lambda user, shared: _templates(own))
    made: list[RunDirectories] = []
    yield made
    for one in made:
        delete_trees(one.remove)
    shutil.rmtree(_templates(own), ignore_errors=True)


def _templates(shared: Path) -> Path:
    user = store_user()
    return database_templates.templates_folder(user, shared).with_name(f"databases-test-{os.getpid()}")


@pytest.fixture
def prepare(directories: list[RunDirectories]) -> Prepare:
    def make() -> list[str]:
        one = open_directories(None, embedded_postgres=True)
        directories.append(one)
        ran: list[str] = []

        def run_step(name: str, argv: Sequence[str], stdin: str) -> None:
            ran.append(Path(argv[0]).name)
            account = {} if one.user is None else {"user": one.user.uid, "group": one.user.gid, "extra_groups": []}
            done = subprocess.run(argv, input=stdin.encode(), capture_output=True, check=False, cwd="/", **account)  # type: ignore[call-overload]  # **account
            if done.returncode:
                raise StartError(f"{name}: {done.stderr.decode()}")

        Postgres(one).prepare(run_step)
        return ran

    return make


def _content(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_the_second_database_is_a_private_copy_of_the_first_one(prepare: Prepare, directories: list[RunDirectories]) -> None:
    assert prepare() == ["initdb", "postgres", "cp"]
    assert prepare() == ["cp"]
    first, second = (one.home / "postgres" for one in directories)
    assert _content(first) == _content(second)
    assert second.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_uid == first.stat().st_uid for path in second.rglob("*"))


def test_a_database_that_is_kept_is_forced_to_the_disk(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.setattr(Postgres, "ephemeral", property(lambda self: False, lambda self, value: None), raising=False)
    assert prepare() == ["cp", "initdb"]


def test_a_template_that_cannot_be_copied_is_not_used(prepare: Prepare, directories: list[RunDirectories]) -> None:
    prepare()
    (template,) = _templates(postgres._COPIES).iterdir()
    (template / "base").chmod(0)
    assert prepare()[:3] == ["cp", "initdb", "postgres"]
    assert (directories[1].home / "postgres" / "base").stat().st_mode & 0o777 == 0o700


def test_an_interrupted_copy_never_becomes_a_template(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_templates, "_copy", lambda source, target: ("cp", "/nowhere", str(target)))
    assert prepare() == ["initdb", "postgres", "cp"]
    assert list(_templates(postgres._COPIES).iterdir()) == []


def test_few_templates_are_kept(prepare: Prepare) -> None:
    prepare()
    folder = _templates(postgres._COPIES)
    (template,) = folder.iterdir()
    for age in range(1, 6):
        old = folder / f"old-{age}"
        old.mkdir()
        os.utime(old, (age, age))
    shutil.rmtree(template)
    prepare()
    assert {path.name for path in folder.iterdir()} == {template.name, "old-5", "old-4"}


def test_others_can_neither_use_nor_place_a_template(prepare: Prepare) -> None:
    prepare()
    _templates(postgres._COPIES).chmod(0o755)
    assert prepare() == ["initdb", "postgres"]


def test_after_a_restart_of_the_machine_no_template_is_used(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    (tmp_path / "boot").write_text("another boot")
    monkeypatch.setattr(database_templates, "_BOOT_ID", tmp_path / "boot")
    assert prepare() == ["initdb", "postgres", "cp"]
