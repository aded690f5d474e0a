"""The library that is preloaded into an application's processes, and the programs into which it cannot be."""

import mmap
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

_SOURCES: Final = tuple(str(Path(__file__).with_name(name)) for name in ("clocks.c", "connections.c", "answers.c", "waits.c"))
_COMPILERS: Final = ("cc", "gcc", "clang")
_GO: Final = b"\xff Go buildinf:"
_ELF: Final = b"\x7fELF"
_DYNAMIC_LINKER: Final = 3
_MAX_SCRIPTS: Final = 4
VARIABLE: Final = "PSP_CLOCK_FILE"
"""The variable that names the clock file to an application's processes."""
FOLDER_VARIABLE: Final = "SANDBOX_CLOCK_FOLDER"
"""The variable that tells the sandbox where the clock files are: each has the id of the merchant that it follows."""


class OneClockError(Exception):
    """An application cannot follow the merchant's clock. The message says why."""


def compiler() -> str | None:
    """Return the path of the C compiler that builds the library, or None if there is none."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def build(folder: Path) -> Path:
    """Compile the library into a folder, and return its path. Raises OneClockError."""
    if platform.system() != "Linux":
        raise OneClockError("One clock works on Linux only; elsewhere, use a container.")
    found = compiler()
    if found is None:
        raise OneClockError("One clock needs a C compiler (Debian and Ubuntu: apt install gcc libc6-dev).")
    library = folder / "one_clock.so"
    done = subprocess.run(  # noqa: S603 (a fixed command, no shell)
        [found, "-shared", "-fPIC", "-O2", "-o", str(library), *_SOURCES, "-ldl", "-lpthread"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OneClockError(f"{found} could not compile the library: {done.stderr.strip()[-500:]}")
    return library


def environment(library: Path, clock_file: Path) -> dict[str, str]:
    """Return the variables that let a process follow the clock file."""
    preloaded = " ".join(filter(None, (str(library), os.environ.get("LD_PRELOAD"))))
    return {"LD_PRELOAD": preloaded, VARIABLE: str(clock_file)}


def require_following(command: str) -> None:
    """Raise OneClockError if a command is known not to follow. A command that is not found is left to whoever runs it."""
    found = shutil.which(command)
    for _ in range(_MAX_SCRIPTS):
        if found is None:
            return
        reason = why_not(Path(found))
        if reason is not None:
            raise OneClockError(f"{found} cannot follow the clock: {reason}.")
        found = _interpreter(Path(found))


def why_not(program: Path) -> str | None:
    """Return why a program's clock cannot be moved, or None if nothing is known against it."""
    try:
        status = program.stat()
        return _why_not(program, status.st_mtime_ns, status.st_mode)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _why_not(program: Path, _changed_at: int, mode: int) -> str | None:
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return "it runs as another user, so no library is preloaded into it"
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != _ELF:
            return None
        if content.find(_GO) >= 0:
            return "it is written in Go, which reads the clock without the C library"
        if not _has_dynamic_linker(content):
            return "it is linked statically, so no library is preloaded into it"
    return None


def _has_dynamic_linker(content: mmap.mmap) -> bool:
    order = sys.byteorder  # a program for this machine
    is_64 = content[4] == 2
    first, size, count = (32, 54, 56) if is_64 else (28, 42, 44)
    at = int.from_bytes(content[first : first + (8 if is_64 else 4)], order)
    length, number = (int.from_bytes(content[one : one + 2], order) for one in (size, count))
    headers = (content[at + i * length : at + i * length + 4] for i in range(number))
    return any(int.from_bytes(header, order) == _DYNAMIC_LINKER for header in headers)


def _interpreter(script: Path) -> str | None:
    with script.open("rb") as file:
        line = file.readline(256)
    if not line.startswith(b"#!"):
        return None
    words = shlex.split(line[2:].decode("utf-8", "replace"))
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return shutil.which(words[0]) if words else None
