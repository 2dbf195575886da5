"""The command `cssta inpaint VIDEO --mask MASK --output OUT`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cssta
from cssta.checkpoint import CheckpointError
from cssta.masks import dilate
from cssta.video import (
    VideoError,
    VideoInfo,
    check_replaceable,
    probe,
    read_frames,
    read_masks,
    write_frame_folder,
    write_video,
)

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="cssta: warning: %(message)s")
    try:
        inpaint(args)
    except (VideoError, CheckpointError, OSError) as error:
        print(f"cssta: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("cssta: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cssta", description=cssta.__doc__)
    parser.add_argument("--version", action="version", version=f"cssta {cssta.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "inpaint",
        help="complete the holes of one video",
        description="Complete the holes of one video. Pixels outside the mask go in unchanged.",
    )
    command.add_argument("video", type=Path, help="video file, or folder of png/jpg frames")
    command.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="white (in PNGs: anything but black) where the video is to be completed: a video or "
        "folder of the same length, or one picture for all frames",
    )
    command.add_argument(
        "--output", type=Path, required=True, help="NAME.mp4, or a folder for lossless PNG frames"
    )
    command.add_argument(
        "--model", metavar="FOLDER", help="model folder (default: the shipped one)"
    )
    command.add_argument(
        "--device", type=_device, help="cpu, cuda, cuda:1, ... (default: the first GPU, or cpu)"
    )
    command.add_argument(
        "--crf", type=_bounded(float, 0, 51), default=16, help="MP4 quality, 0 best (default 16)"
    )
    command.add_argument(
        "--dilate",
        type=_bounded(int, 0, 1000),
        default=0,
        metavar="PIXELS",
        help="widen the mask, for rims that still show (default 0)",
    )
    command.add_argument(
        "--fps",
        type=_bounded(float, 0.1, 1000),
        help="frame rate of a frame folder (default 24); video files keep their own",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    return parser


def _bounded(kind: type, low: float, high: float):
    def parse(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not within {low} to {high}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def _device(text: str) -> str:
    try:
        known = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"no device is called {text!r}: cpu, cuda, ...") from None
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"this machine has no GPU {text!r}: leave it out, or cpu")
    return text


def inpaint(args: argparse.Namespace) -> None:
    """Read, complete, write. Raises VideoError or CheckpointError before anything is written."""
    check_output(args.output, [args.video, args.mask], args.overwrite)
    info = probe(args.video, args.fps)
    masks = read_masks(args.mask, info.frames, info.height, info.width)
    if args.dilate:
        masks = dilate(masks, args.dilate)
    note_holes(args.mask, masks)
    inpainter = cssta.Inpainter.load(args.model, args.device)
    frames = read_frames(args.video)
    completed = complete(inpainter, frames, masks, info)
    if args.output.suffix:
        write_video(args.output, completed, info.fps, crf=args.crf)
    else:
        write_frame_folder(args.output, completed, overwrite=args.overwrite)
    print(f"{args.output}: {info.frames} frames, {info.width}x{info.height}")


def check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise VideoError if the output has no format of ours, is an input, or exists already."""
    if output.suffix and output.suffix.lower() != ".mp4":
        raise VideoError(
            output, "format", "only .mp4 can be written", "Name it .mp4, or name a folder for PNGs"
        )
    if any(output.resolve() == source.resolve() for source in inputs):
        raise VideoError(output, "exists", "the output is an input", "Give another output name")
    if not output.suffix:
        check_replaceable(output, overwrite)
    elif output.is_dir():
        raise VideoError(output, "exists", "a folder has that name", "Give another output name")
    elif output.exists() and not overwrite:
        raise VideoError(output, "exists", "it exists already", "Add --overwrite to replace it")


def note_holes(path: Path, masks: np.ndarray) -> None:
    """Warn of masks that are probably a mistake."""
    if not masks.any():
        logging.warning("%s has no hole (no white): the video stays as it is", path)
    elif masks.all():
        logging.warning("%s covers everything: there is nothing to complete the video from", path)


def complete(
    inpainter: cssta.Inpainter, frames: np.ndarray, masks: np.ndarray, info: VideoInfo
) -> np.ndarray:
    """Inpaint behind a progress bar (shown on terminals only)."""
    with tqdm(total=int(masks.any(axis=(1, 2)).sum()), unit="frame", disable=None) as bar:
        bar.set_description(info.path.name)

        def progress(done: int, _total: int) -> None:
            bar.update(done - bar.n)

        return inpainter.inpaint(frames, masks, progress)


if __name__ == "__main__":
    sys.exit(main())
