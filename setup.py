"""The list of packages. Everything else is in pyproject.toml.

A wheel has one top-level package. The sandbox's own packages are inside it, in `_application`, because a project that installs
the wheel may well have a `worker`, `seeds` or `sandbox` package itself. `psp_sandbox/application.py` finds them there. An
editable installation leaves them where they are.
"""

import sys

from setuptools import find_namespace_packages, setup

PREFIX = "psp_sandbox._application"
# Benchmarks need a git checkout. The guide is data, whatever its folders are called.
EXCLUDED = ["sandbox.cli.benches", "sandbox.cli.benches.*", "sandbox.server.docs.guide", "sandbox.server.docs.guide.*"]


def find(*names: str) -> list[str]:
    """Return these packages and their subpackages."""
    return find_namespace_packages(include=[pattern for name in names for pattern in (name, f"{name}.*")], exclude=EXCLUDED)


public, own = find("psp_sandbox"), find("sandbox", "worker", "ipn", "seeds")
if "editable_wheel" in sys.argv:
    setup(packages=public + own)
else:
    setup(
        packages=[*public, *(f"{PREFIX}.{name}" for name in own)],
        package_dir={f"{PREFIX}.{name}": name for name in own if "." not in name},
    )
