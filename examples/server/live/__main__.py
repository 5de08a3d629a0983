"""The command: `python -m live {serve,decide,measure}`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import treadle

from live import measure, schedule, server, trial
from live.errors import ServerError


def serve(options: argparse.Namespace) -> int:
    """Serves until it is told to end."""
    entries = [schedule.parse(text) for text in options.schedule]
    server.main(
        options.host, options.port, options.queue, entries, options.workers, options.decisions
    )
    return 0


def port_of(text: str) -> int:
    """A number of a port."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port; there are 1 to 65535")
    return number


def count_of(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def parser() -> argparse.ArgumentParser:
    """All that can be said on the command line."""
    whole = argparse.ArgumentParser(prog="python -m live", description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    one = verbs.add_parser("serve", help="serve until SIGTERM or Ctrl-C")
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=port_of, default=8765, help="8765; 0 finds a free one")
    one.add_argument("--queue", type=Path, default=Path("queue.sqlite"), metavar="FILE")
    one.add_argument("--workers", type=count_of, metavar="N", help="instead of the decided plan")
    one.add_argument(
        *("--schedule", "-s"),
        action="append",
        default=[],
        metavar="RULE=REPORT",
        help="30s=overview, 5min=forecast, '*/10 * * * *=forecast' (UTC); may be repeated",
    )
    one.add_argument("--decisions", type=Path, default=trial.FOLDER, help=argparse.SUPPRESS)
    one.set_defaults(run=serve)

    one = verbs.add_parser("decide", help="have treadle compare the plans, and keep the decision")
    one.add_argument("--budget", type=float, default=60.0, metavar="SECONDS")
    one.set_defaults(run=lambda options: trial.decide(options.budget))

    one = verbs.add_parser("measure", help="hold clients with and without jobs; print the table")
    one.add_argument("--clients", type=int, default=2000, metavar="N")
    one.add_argument("--seconds", type=float, default=12.0, help="of each phase (12)")
    one.add_argument("--rate", type=float, default=500.0, help="light requests a second (500)")
    one.add_argument("--workers", type=count_of, metavar="N", help="instead of the decided plan")
    one.add_argument("--short", action="store_true", help="200 clients, 3 seconds")
    one.set_defaults(run=measure.main)
    return whole


def main() -> int:
    """Runs a verb; turns what went wrong into one message and an exit code."""
    options = parser().parse_args()
    try:
        return int(options.run(options))
    except (ServerError, treadle.TreadleError) as error:
        print(f"error: {error}", file=sys.stderr)
        hint = getattr(error, "hint", "")
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
