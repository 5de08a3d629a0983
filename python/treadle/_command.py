"""The console command ``treadle``: hands its arguments to the engine, which holds the whole command line."""

import sys


def main() -> None:
    """Runs the command and ends with its exit code (130 after Ctrl-C)."""
    try:
        from treadle import _core

        code = _core.command(sys.argv)
    except KeyboardInterrupt:  # between the interpreter's start and the engine's own handling
        sys.stderr.write("treadle: interrupted\n")
        code = 130
    sys.exit(code)
