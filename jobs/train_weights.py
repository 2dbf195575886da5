"""Train the default weights on one machine, from clips packed by `--pack`.

python jobs/train_weights.py --pack CLIPS --packed PACKED      decode a folder of clips once
python jobs/train_weights.py --packed PACKED --output OUT      train; run again to go on
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from cssta.config import PRESETS, ModelConfig
from cssta.losses import LossWeights
from cssta.training import Settings
from cssta.training.local_run import LocalRun
from cssta.training.packed import pack
from cssta.training.packing import clips_of_folder

STAGES = ("im2im", "inpainter", "temporal")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.pack is not None:
        count = pack(options.packed, progress(clips_of_folder(options.pack)))
        print(f"{count} clips packed into {options.packed}")
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    run = LocalRun(
        packed=options.packed,
        output=options.output,
        config=ModelConfig.preset(options.size),
        settings=Settings(
            learning_rate=options.learning_rate,
            targets=options.targets,
            mixed_precision=options.bfloat16 or None,
            unfold=options.bfloat16 and not torch.cuda.is_available(),
        ),
        losses=LossWeights(lambda_g=options.lambda_g),
        minutes=dict(zip(STAGES, options.minutes, strict=True)),
        steps=options.steps and dict(zip(STAGES, options.steps, strict=True)),
        batch=options.batch,
        frames=options.frames,
        size=options.crop,
        log=lambda text: print(text, flush=True),
    )
    print(f"model folder: {run.run()}")


def progress(clips: Iterator) -> Iterator:
    for number, clip in enumerate(clips, 1):
        if number % 25 == 0:
            print(f"{number} clips", flush=True)
        yield clip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, help="folder of clips, with clips.csv if there is one")
    parser.add_argument("--packed", type=Path, required=True, help="folder of packed clips")
    parser.add_argument("--output", type=Path, default=Path("runs/weights"))
    parser.add_argument("--size", choices=sorted(PRESETS), default="base", help="model size")
    parser.add_argument(
        "--minutes",
        type=float,
        nargs=3,
        default=(4, 18, 4),
        metavar=("IM2IM", "INPAINTER", "TEMPORAL"),
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        metavar=("IM2IM", "INPAINTER", "TEMPORAL"),
        help="instead of minutes: an equal budget for sizes to be compared",
    )
    parser.add_argument("--batch", type=int, default=2, help="clips per step")
    parser.add_argument("--frames", type=int, default=5, help="frames per clip")
    parser.add_argument("--targets", type=int, default=None, help="targets per clip (all)")
    parser.add_argument("--crop", type=int, default=128, help="side of the square crops, pixels")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--lambda-g", type=float, default=0.0, help="weight of the GAN loss")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    parser.add_argument(
        "--bfloat16", action="store_true", help="also on CPU; pays where it has a matrix unit (AMX)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
