"""The command line: `cssta inpaint`, `cssta evaluate`."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import cssta

log = logging.getLogger(__name__)

COMMANDS = {
    "inpaint": ("cssta.inpaint_command", "complete the holes of one video"),
    "evaluate": ("cssta.evaluation.command", "score a model, results or baselines on a data set"),
}

UNEXPECTED = 1
BAD_INPUT = 2
BAD_OUTPUT = 3
UNVERIFIED = 4
BAD_MODEL = 5
INTERRUPTED = 130

# What is wrong with the output's name or place rather than with an input.
OUTPUT_REASONS = {"exists", "unwritable", "resume"}


class UsageError(ValueError):
    """A command line that makes no sense; `usage` is the text that shows how it should look."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving, so that scripts get their JSON then too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `cssta inpaint --help`)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Before PyTorch is loaded: threads that wait must sleep. Beside an encoder's threads, or on a
    # busy machine, those that spin made the work take five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="cssta: %(levelname)s: %(message)s")
    # Whoever ends a job politely gets what Ctrl-C gives: nothing half-done, and a way to go on.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _warnings_kept() as warnings:
        code, outcome, text = _outcome(arguments)
    if "--json" in arguments and outcome is not None:
        print(json.dumps({**outcome, "warnings": warnings}, indent=1))
    elif text:
        print(text, file=sys.stderr if code else sys.stdout)
    return code


def _outcome(arguments: list[str]) -> tuple[int, dict[str, object] | None, str]:
    """Exit code, outcome for scripts (None: the command has told it), and the same in words."""
    try:
        args = build_parser(arguments).parse_args(arguments)
        if check := getattr(args, "check", None):
            check(args)
        logging.getLogger("cssta").setLevel(logging.INFO if args.verbose else logging.WARNING)
        done = args.run(args)
        if done is None:
            return 0, None, ""
        outcome, text = done
        return 0, {"status": "done", **outcome}, text
    except KeyboardInterrupt:
        return _failure(INTERRUPTED, "interrupted", "interrupted; nothing was published")
    except UsageError as error:
        code, outcome, text = _failure(BAD_INPUT, "usage", str(error))
        return code, outcome, f"{error.usage}{text}"
    except Exception as error:
        return _explained(error)


def _explained(error: Exception) -> tuple[int, dict[str, object], str]:
    from cssta.checkpoint import CheckpointError
    from cssta.video import VideoError

    if isinstance(error, CheckpointError):
        return _failure(BAD_MODEL, "model", str(error))
    if isinstance(error, VideoError):
        code = BAD_OUTPUT if error.reason in OUTPUT_REASONS else BAD_INPUT
        code = UNVERIFIED if error.reason == "unverified" else code
        return _failure(code, error.reason, str(error), str(error.path))
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        message = f"{what}. Check that it exists, its rights, and the space on the disk."
        return _failure(BAD_OUTPUT, "system", message, error.filename)
    log.debug("unexpected", exc_info=True)
    message = f"unexpected {type(error).__name__}: {error}. Please report it."
    if "memory" in str(error).lower() or isinstance(error, MemoryError):
        message = f"out of memory ({error}). Close other programs or complete smaller parts."
    return _failure(UNEXPECTED, "unexpected", message)


def _failure(
    code: int, reason: str, message: str, path: str | None = None
) -> tuple[int, dict[str, object], str]:
    outcome = {"status": "failed", "reason": reason, "path": path, "message": message}
    return code, {**outcome, "exit_code": code}, f"cssta: {message}"


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser; whole only for the command that the arguments name, which is quicker to load."""
    parser = Parser(prog="cssta", description=cssta.__doc__)
    parser.add_argument("--version", action="version", version=f"cssta {cssta.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, what) in COMMANDS.items():
        if name == named:
            # (Not at the top: whoever interrupts while it is loaded gets an answer too.)
            importlib.import_module(module).add_parser(commands)
        else:
            commands.add_parser(name, help=what)
    return parser


@contextmanager
def _warnings_kept() -> Iterator[list[str]]:
    """Collects what is logged as a warning, besides its being shown."""
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield kept
    finally:
        logging.getLogger().removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
