"""`python -m vdsl`."""

import sys

from vdsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
