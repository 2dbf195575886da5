"""The command line: `cssta inpaint`, `cssta evaluate`."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence

import cssta
from cssta import inpaint_command
from cssta.checkpoint import CheckpointError
from cssta.evaluation import command as evaluation_command
from cssta.video import VideoError

log = logging.getLogger(__name__)

UNEXPECTED = 1
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
    if check := getattr(args, "check", None):
        check(args)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="cssta: %(levelname)s: %(message)s")
    logging.getLogger("cssta").setLevel(level)
    # Whoever ends a job politely gets what Ctrl-C gives: nothing half-done, and a way to go on.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        message = f"{what}. Check that it exists, its rights, and the space on the disk."
        return _fail(args, BAD_OUTPUT, "system", message, error.filename)
    except Exception as error:
        log.debug("unexpected", exc_info=True)
        message = f"unexpected {type(error).__name__}: {error}. Please report it."
        if "memory" in str(error).lower() or isinstance(error, MemoryError):
            message = f"out of memory ({error}). Close other programs or complete smaller parts."
        return _fail(args, UNEXPECTED, "unexpected", message, None)
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
