"""Which parts of the package are installed. The client and the pytest plugin always are; the sandbox itself is an extra."""

import re
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from typing import Final

PACKAGE: Final = "psp-sandbox"
SERVER: Final = f"{PACKAGE}[server]"
"""What to install for a sandbox."""
_NAME: Final = re.compile(r"[\w.-]+")
_OF_SERVER: Final = re.compile(r"""extra == ['"]server['"]""")


def missing_for_server() -> list[str]:
    """Return the requirements of a sandbox that this environment does not have; none if it can run one."""
    try:
        all_of_them = requires(PACKAGE) or []
    except PackageNotFoundError:  # a copy of the source code, without an installation
        return []
    names = dict.fromkeys(_NAME.match(one)[0] for one in all_of_them if _OF_SERVER.search(one))  # type: ignore[index]  # all have a name
    return [name for name in names if not _is_installed(name)]


def server_of_this_version() -> str:
    """Return the requirement for the sandbox of the same version as this client."""
    return f"{SERVER}=={version(PACKAGE)}"


def why_no_report(file_name: str) -> str | None:
    """Return why a report cannot be written to a file of this name, or None if it can."""
    if not file_name.lower().endswith(".html") or find_spec("jinja2") is not None:
        return None
    return f"a report as a page needs Jinja: pip install '{PACKAGE}[report]', or choose a file that ends in .md"


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
