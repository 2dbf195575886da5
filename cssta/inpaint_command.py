"""`cssta inpaint`: its arguments, its progress bars, what it prints."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from cssta.progress import Progress
from cssta.video import Box, MaskSpec

# What needs PyTorch is imported where it is used: help and wrong usage should not take seconds.

LABELS = {"survey": "looking through", "complete": "completing", "verify": "checking the output"}

EXAMPLES = """\
examples:
  cssta inpaint clip.mp4 --mask mask.mp4 --output clean.mp4
  cssta inpaint clip.mov --box 40,30,200,80 --dilate 4 --output clean.mov
  cssta inpaint clip.mp4 --mask mask.png --preview 12.5 --output look.png
  cssta inpaint shot.%04d.png --mask masks/ --lossless --output clean.mkv

exit codes:
  0 done   1 unexpected   2 input or usage   3 the output exists or cannot be written
  4 the output failed its verification   5 the model cannot be used   130 interrupted
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `inpaint` to the command line."""
    parser = commands.add_parser(
        "inpaint",
        help="complete the holes of one video",
        description="Complete the holes of one video. Everything else goes in as it was: timing, "
        "sound, subtitles, rotation, colours, bit depth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, check=lambda args: _check(parser, args))
    parser.add_argument(
        "video",
        type=Path,
        help="video file, folder of frames, or a sequence such as shot.%%04d.png",
    )
    parser.add_argument(
        "--output",
        required=True,
        help=".mp4, .mov, .mkv or .webm; or, for PNG frames exact outside the hole, a folder (a "
        "name without ending, or with / at its end) or a pattern such as out/shot.%%04d.png",
    )
    _add_mask(parser.add_argument_group("where the holes are (one of the first three)"))
    _add_output(parser.add_argument_group("the output"))
    _add_method(parser.add_argument_group("the work"))


def _add_mask(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mask",
        type=Path,
        help="white where to complete: a video or folder of exactly as many frames, a sequence, "
        "or one picture for all frames",
    )
    group.add_argument(
        "--box",
        type=box,
        action="append",
        metavar="X,Y,W,H[@T0-T1]",
        help="a rectangle in pixels, from second T0 to T1 or all the time; may be repeated "
        "(and may begin outside: --box=-5,0,9,9)",
    )
    group.add_argument(
        "--alpha", action="store_true", help="the video's own alpha channel: transparent is hole"
    )
    group.add_argument(
        "--threshold",
        type=_bounded(int, 0, 254),
        metavar="GREY",
        help="mask pixels brighter than this are hole (default: 127, in PNGs 0)",
    )
    group.add_argument(
        "--dilate",
        type=_bounded(int, 0, 1000),
        default=0,
        metavar="PIXELS",
        help="widen the holes, for rims that still show (default 0; 4 suits tight masks)",
    )
    group.add_argument("--invert", action="store_true", help="black is hole instead")
    group.add_argument(
        "--hold-last",
        action="store_true",
        help="a mask that is too short keeps its last picture, one that is too long is cut",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--lossless",
        action="store_true",
        help="FFV1 in .mkv: outside the holes every sample equals the source's",
    )
    group.add_argument(
        "--codec", help="h264, hevc, vp9, av1, prores or ffv1 (default: the source's)"
    )
    group.add_argument(
        "--crf",
        type=_bounded(float, 0, 63),
        help="quality, 0 best (default: looks like the source)",
    )
    group.add_argument("--pix-fmt", help="such as yuv420p10le (default: the source's)")
    group.add_argument(
        "--accept-loss",
        action="store_true",
        help="warn, instead of refusing, where something of the source cannot be kept",
    )
    group.add_argument(
        "--fps",
        type=_bounded(float, 0.1, 1000),
        help="frame rate of pictures (default 24); video files keep their timing",
    )
    group.add_argument(
        "--feather",
        type=_bounded(int, 0, 1000),
        default=0,
        metavar="PIXELS",
        help="fade the result in over so many pixels inside the hole (default 0)",
    )
    group.add_argument(
        "--preview",
        type=_bounded(float, 0, 1e6),
        metavar="SECONDS",
        help="only write one PNG of input, mask and result at this time",
    )
    group.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    group.add_argument(
        "--resume", action="store_true", help="go on after the last finished segment"
    )


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", metavar="FOLDER", help="model folder (default: the shipped one)")
    group.add_argument(
        "--device", type=_device, help="cpu, cuda, cuda:1, ... (default: the first GPU, or cpu)"
    )
    group.add_argument(
        "--no-scene-cuts",
        action="store_true",
        help="treat the video as one scene: borrow across cuts",
    )
    group.add_argument(
        "--temporal",
        action=argparse.BooleanOptionalAction,
        help="run the temporal network (default: if the model is better with it)",
    )
    group.add_argument(
        "--no-texture",
        action="store_true",
        help="leave what no frame sees smooth, which errs less and looks worse",
    )
    group.add_argument("--json", action="store_true", help="print the outcome as JSON")
    group.add_argument("-v", "--verbose", action="store_true", help="tell what is decided and why")


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.mask is None and not args.box and not args.alpha:
        parser.error("where are the holes? give --mask, --box or --alpha")


def box(text: str) -> Box:
    """`Box.parse`, as argparse wants it."""
    try:
        return Box.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bounded(kind: type, low: float, high: float):
    def parse(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not within {low} to {high}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def _device(text: str) -> str:
    import torch

    try:
        known = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"no device is called {text!r}: cpu, cuda, ...") from None
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"this machine has no GPU {text!r}: leave it out, or cpu")
    return text


def run(args: argparse.Namespace) -> tuple[dict[str, object], str]:
    """Do what the arguments say; returns the outcome for scripts, and in words.

    Raises VideoError or CheckpointError.
    """
    from cssta.complete_file import FileJob, complete_file
    from cssta.preview import write_preview

    job = FileJob(
        video=args.video,
        output=Path(args.output),
        as_frames=args.output.endswith(("/", os.sep)),
        mask=MaskSpec(
            path=args.mask,
            boxes=tuple(args.box or ()),
            alpha=args.alpha,
            threshold=args.threshold,
            dilate=args.dilate,
            invert=args.invert,
            hold_last=args.hold_last,
        ),
        model=args.model,
        device=args.device,
        feather=args.feather,
        lossless=args.lossless,
        codec=args.codec,
        crf=args.crf,
        pix_fmt=args.pix_fmt,
        accept_loss=args.accept_loss,
        fps=args.fps,
        scene_cuts=not args.no_scene_cuts,
        temporal=args.temporal,
        texture=not args.no_texture,
        overwrite=args.overwrite,
        resume=args.resume,
    )
    if args.preview is not None:
        outcome = write_preview(job, args.preview)
        text = f"{outcome['output']}: frame {outcome['frame']} at {outcome['seconds']:.3f} s"
    else:
        with Bars(args.video.name) as bars:
            done = complete_file(job, bars)
        outcome = asdict(done)
        frames = f"{done.frames} frame{'s' * (done.frames != 1)}"
        text = (
            f"{done.output}: {frames}, {done.width}x{done.height}, "
            f"{done.completed} completed in {done.seconds:.0f} s"
        )
    return outcome, text


class Bars(Progress):
    """One progress bar after another; on terminals only."""

    def __init__(self, name: str) -> None:
        self.name, self.bar = name, None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def phase(self, name: str, frames: int, done: int = 0) -> None:
        self.__exit__()
        from tqdm import tqdm

        label = f"{self.name}: {LABELS[name]}"
        self.bar = tqdm(desc=label, total=frames, initial=done, unit="frame", disable=None)

    def advance(self, frames: int = 1) -> None:
        self.bar.update(frames)
