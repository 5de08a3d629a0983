"""Starts the measuring process; see the package's docstring."""

import sys

if __name__ == "__main__":
    from treadle._laboratory.protocol import main

    sys.exit(main(sys.argv[1:]))
