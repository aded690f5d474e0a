"""The build backend: setuptools, which first writes the client's generated files and the guide into the folder."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the other hooks are setuptools' own

ROOT = Path(__file__).resolve().parent.parent


def _generate_client() -> None:
    """Write the files of the client that come from the OpenAPI document."""
    _run("ruff", ROOT / "openapi" / "generate_client.py")


def _build_guide() -> None:
    """Build the guide, unless this is a source archive that contains it, or a copy of the code alone."""
    if not (ROOT / "docs").is_dir() or not (ROOT / "zensical.toml").is_file():
        sys.stderr.write("No docs folder: this build does not contain the guide.\n")
        return
    _run("zensical", ROOT / "build_backend" / "guide.py")


def _run(needed: str, program: Path) -> None:
    """Run a program that needs a package. Raises SystemExit if it is missing, CalledProcessError if the program fails."""
    if find_spec(needed) is None:
        raise SystemExit(f"Building needs {needed}: install requirements-build.txt, or build with isolation.")
    subprocess.run([sys.executable, str(program)], check=True, stdout=sys.stderr)  # noqa: S603 -- our own file


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel that contains the whole client and the guide."""
    _generate_client()
    _build_guide()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Write the client's generated files and the guide into the checkout, and build the files of an editable install."""
    _generate_client()
    _build_guide()
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build a source archive that contains the whole client. With SOURCE_DATE_EPOCH, the same sources give the same bytes."""
    _generate_client()
    name = str(build_meta.build_sdist(sdist_directory, config_settings))
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        _fix(Path(sdist_directory, name), int(epoch))
    return name


def _fix(archive: Path, epoch: int) -> None:
    """Sort the members of an archive, and give them and the archive one time, one owner and the usual modes."""
    with tarfile.open(archive) as old:
        members = [(one, old.extractfile(one)) for one in sorted(old.getmembers(), key=lambda one: one.name)]
        fixed = io.BytesIO()
        with tarfile.open(fileobj=fixed, mode="w", format=tarfile.PAX_FORMAT) as new:
            for one, content in members:
                one.mtime, one.uid, one.gid, one.uname, one.gname, one.pax_headers = epoch, 0, 0, "", "", {}
                one.mode = 0o755 if one.isdir() or one.mode & 0o100 else 0o644
                new.addfile(one, content)
    archive.write_bytes(gzip.compress(fixed.getvalue(), mtime=epoch))
