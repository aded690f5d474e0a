"""One pair of lock files works for Python 3.11.0 and later, on Linux and macOS, x86-64 and arm64."""

import contextlib
import re
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ["3.11.0", "3.11.2", "3.11.3", "3.12.0", "3.13.0", "3.14.0"]
PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")]


def locked(name: str, environment: dict[str, str]) -> dict[str, str]:
    """Return the versions that a lock file pins for an environment, by package name.

    Check that each package is pinned once, exactly and with hashes.
    """
    pins: dict[str, str] = {}
    text = (ROOT / name).read_text().replace("\\\n", " ")
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        pin, *hashes = line.split(" --hash=")
        requirement = Requirement(pin)
        (exact,) = requirement.specifier
        assert exact.operator == "=="
        assert hashes
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert pins.setdefault(canonicalize_name(requirement.name), exact.version) == exact.version
    return pins


def environment_of(python: str, system: str, machine: str) -> dict[str, str]:
    """Return the values of the environment markers on another machine."""
    return {
        **{key: str(value) for key, value in default_environment().items()},
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "implementation_version": python,
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine,
    }


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_lock_files_pin_every_dependency(python: str, system: str, machine: str) -> None:
    environment = environment_of(python, system, machine)
    runtime = locked("requirements.txt", environment)
    pins = runtime | locked("requirements-dev.txt", environment)
    assert pins.items() >= runtime.items(), "both files must pin the same versions"

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras_of = project["optional-dependencies"]
    needs = {"psp-sandbox": [*project["dependencies"], *extras_of["server"], *extras_of["dev"]]}
    for name in pins:
        with contextlib.suppress(PackageNotFoundError):  # not installed: needed on other platforms only
            needs[name] = requires(name) or []
    extras: dict[str, set[str]] = defaultdict(lambda: {""})
    missing = []
    for name, texts in needs.items():
        for need in map(Requirement, texts):
            if need.marker is None or any(need.marker.evaluate({**environment, "extra": extra}) for extra in extras[name]):
                extras[canonicalize_name(need.name)] |= need.extras
                found = pins.get(canonicalize_name(need.name))
                if found is None or not need.specifier.contains(found, prereleases=True):
                    missing.append(f"{name} needs {need}, but the lock file pins {found}")
    assert missing == []


def test_lock_files_contain_no_hosts_or_paths() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host|(^|\s)/", text)
