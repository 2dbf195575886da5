"""The command line: `cssta inpaint`, `cssta evaluate`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

import cssta
from cssta import inpaint_command
from cssta.checkpoint import CheckpointError
from cssta.evaluation import command as evaluation_command
from cssta.video import VideoError

BAD_INPUT = 2
BAD_OUTPUT = 3
UNVERIFIED = 4
BAD_MODEL = 5
INTERRUPTED = 130

# What is wrong with the output's name or place rather than with an input.
OUTPUT_REASONS = {"exists", "unwritable", "resume"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `cssta inpaint --help`)."""
    args = build_parser().parse_args(arguments)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="cssta: %(levelname)s: %(message)s")
    logging.getLogger("cssta").setLevel(level)
    try:
        args.run(args)
    except KeyboardInterrupt:
        return _fail(args, INTERRUPTED, "interrupted", "interrupted; nothing was published", None)
    except CheckpointError as error:
        return _fail(args, BAD_MODEL, "model", str(error), None)
    except VideoError as error:
        code = BAD_OUTPUT if error.reason in OUTPUT_REASONS else BAD_INPUT
        code = UNVERIFIED if error.reason == "unverified" else code
        return _fail(args, code, error.reason, str(error), str(error.path))
    except OSError as error:
        return _fail(args, BAD_OUTPUT, "system", str(error), error.filename)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cssta", description=cssta.__doc__)
    parser.add_argument("--version", action="version", version=f"cssta {cssta.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    inpaint_command.add_parser(commands)
    evaluation_command.add_parser(commands)
    return parser


def _fail(args: argparse.Namespace, code: int, reason: str, message: str, path: str | None) -> int:
    if args.json:
        outcome = {"status": "failed", "reason": reason, "path": path, "message": message}
        print(json.dumps({**outcome, "exit_code": code}, indent=1))
    else:
        print(f"cssta: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
