"""The build backend: setuptools, which also builds the guide into the wheel or, for an editable install, into the checkout."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the other hooks are setuptools' own


def _build_guide() -> None:
    """Build the guide, unless this is a source archive that contains it, or a copy of the code alone."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "docs").is_dir() or not (root / "zensical.toml").is_file():
        sys.stderr.write("No docs folder: this build does not contain the guide.\n")
        return
    if find_spec("zensical") is None:
        raise SystemExit("Building needs Zensical: install requirements-build.txt, or build with isolation.")
    subprocess.run([sys.executable, str(root / "build_backend" / "guide.py")], check=True, stdout=sys.stderr)  # noqa: S603 -- our own file


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel that contains the guide."""
    _build_guide()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build the guide into the checkout, and the files of an editable install."""
    _build_guide()
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))
