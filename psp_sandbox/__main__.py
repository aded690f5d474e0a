"""`python -m psp_sandbox` is `psp`."""

from psp_sandbox.entry import main

if __name__ == "__main__":
    main()
