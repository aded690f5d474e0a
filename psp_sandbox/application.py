"""The folder with the sandbox's own packages, and a command that runs one of their modules:

    python -m psp_sandbox.application sandbox.server.serve

In an installed package the folder is `psp_sandbox/_application`. No other project can have that name, while `worker` or `tests`
are names that many have. In the repository, the folder is the root.
"""

import os
import sys
from typing import Final

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_INSTALLED: Final = os.path.join(_HERE, "_application")

FOLDER: Final = _INSTALLED if os.path.isdir(_INSTALLED) else os.path.dirname(_HERE)
"""The folder that contains the packages `sandbox`, `worker`, `ipn` and `seeds`."""


def put_first() -> None:
    """Make this process import the sandbox's packages, and no other ones of the same names.

    As with `python -P`, it no longer imports from the current directory or from the folder of its script. Further calls have no
    effect.
    """
    if sys.path[0] == FOLDER:
        return
    if not sys.flags.safe_path:
        del sys.path[0]
    sys.path.insert(0, FOLDER)


def main() -> None:
    """Run the module that the first argument names, as `python -m` does, with the other arguments."""
    import runpy  # here, because `psp` does not need it

    if len(sys.argv) < 2:
        sys.exit("usage: python -m psp_sandbox.application MODULE [ARGUMENT ...]")
    put_first()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
