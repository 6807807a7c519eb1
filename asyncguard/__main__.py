"""`python -m asyncguard` is the `asyncguard` command."""

import sys

from asyncguard.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
