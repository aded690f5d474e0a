"""Start a sandbox for the tests, and stop it."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from typing import IO, Final

from psp_sandbox.installed import SERVER, missing_for_server, server_of_this_version
from psp_sandbox.testing.one_clock.library import FOLDER_VARIABLE

PARENT_PID: Final = "SANDBOX_PARENT_PID"
"""The variable that tells the sandbox which process it must not outlive, even if that process ignores SIGHUP (nohup)."""
_STOP_SECONDS: Final = 60.0
_OUTPUT_BYTES: Final = 6000
_UP: Final = ("up", "--ephemeral", "--port", "0", "--ipn-port", "0", "--no-seed", "--json")
_HOW: Final = f"""Do one of these:
  - install it here: pip install '{SERVER}'
  - install it in an environment of its own: pipx install '{SERVER}' (or: uv tool install '{SERVER}')
  - install uv or pipx, with which this plugin runs it without an installation
  - start one yourself, with psp up or in a container, and set PSP_URL and PSP_ADMIN_KEY"""
# The sandbox uses its own stores. The project under test may have its own database in these variables.
_NOT_OURS: Final = ("DATABASE_URL", "REDIS_URL")


class StartError(Exception):
    """The sandbox did not start. The message contains its output."""


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of a running sandbox, and the operator's key. Without a key, PSP_ADMIN_KEY or the default of `psp up` applies."""

    url: str
    admin_key: str | None
    clock_folder: str | None = None
    """Where it looks for the clocks of applications that follow a merchant's clock; None if it does not."""


class SandboxProcess:
    """A sandbox with fresh data that ends with this process, however this process ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._clock_folder: str | None = None

    def start(self) -> Address:
        """Start it and wait until it is ready. Raises StartError."""
        env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        env[PARENT_PID] = str(os.getpid())
        self._clock_folder = env[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="psp-clocks-")
        way = find_psp()
        # An unnamed file: if this process is killed, no file is left over.
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command, no shell)
                [*way, *_UP],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C must not stop it before the tests' teardown has used it.
                start_new_session=True,
            )
            assert self._process.stdout is not None
            try:
                # It prints one line when it is ready. If it cannot start, it exits, and the read returns.
                line = self._process.stdout.readline()
                ready = json.loads(line)
                return Address(ready["api_url"], ready["admin_key"], self._clock_folder)
            except ValueError:
                self.stop()
                raise StartError(f"The sandbox did not start. `{shlex.join(way)}` printed:\n\n{_read_end(log)}") from None
            except BaseException:  # Ctrl-C too
                self.stop()
                raise

    def stop(self) -> None:
        """Stop it, and wait until none of its processes is left. Further calls have no effect."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._clock_folder is not None:
            shutil.rmtree(self._clock_folder, ignore_errors=True)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except BaseException:  # it hangs, or Ctrl-C was pressed again: its reaper ends the other processes
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def find_psp() -> list[str]:
    """Return the command that is `psp`, from the first place that has a sandbox. Raises StartError, which says how to get one.

    The places are this environment, the PATH, and then what uvx or pipx installs for one run, in this package's version.
    """
    if not missing_for_server():
        # -P: the current directory may contain a folder named `sandbox` or `worker`.
        return [sys.executable, "-P", "-m", "psp_sandbox"]
    # The `psp` of this environment is the one that has no sandbox.
    own = os.path.realpath(sysconfig.get_path("scripts"))
    others = [folder for folder in os.get_exec_path() if os.path.realpath(folder) != own]
    if (psp := shutil.which("psp", path=os.pathsep.join(others))) is not None:
        return [psp]
    if (uvx := shutil.which("uvx")) is not None:
        return [uvx, "--from", server_of_this_version(), "psp"]
    if (pipx := shutil.which("pipx")) is not None:
        return [pipx, "run", "--spec", server_of_this_version(), "psp"]
    raise StartError(
        f"There is no sandbox, and no way to start one: {SERVER} is not installed here, and the PATH has no other psp, "
        f"no uvx and no pipx. {_HOW}"
    )


def _read_end(log: IO[bytes]) -> str:
    with contextlib.suppress(OSError):
        log.seek(max(0, os.fstat(log.fileno()).st_size - _OUTPUT_BYTES))
        return log.read().decode("utf-8", "replace").strip() or "(nothing)"
    return "(its output cannot be read)"
