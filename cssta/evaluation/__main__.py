"""`python -m cssta.evaluation evaluate ...`, the same as `cssta evaluate ...`."""

from __future__ import annotations

import argparse
import sys

from cssta.checkpoint import CheckpointError
from cssta.evaluation.command import add_parser
from cssta.video import VideoError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cssta.evaluation", description=__doc__)
    add_parser(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args()
    try:
        args.run(args)
    except (VideoError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
