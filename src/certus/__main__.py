"""`python -m certus` is the command `certus`."""

import sys

from certus.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
