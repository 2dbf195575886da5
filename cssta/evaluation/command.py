"""`cssta evaluate`: score models, baselines or a folder of results by a named protocol."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cssta.checkpoint import CheckpointError
from cssta.engine import Inpainter
from cssta.evaluation.choice import choose_methods, choose_protocol, named
from cssta.evaluation.figures import draw_all
from cssta.evaluation.html_report import write_evaluation
from cssta.evaluation.methods import (
    BASELINES,
    NAMES,
    PARTS,
    Method,
    ResultsFolder,
    model_methods,
)
from cssta.evaluation.perceptual import Networks, Perception
from cssta.evaluation.protocols import PROTOCOLS, Protocol
from cssta.evaluation.provenance import describe_machine, describe_model
from cssta.evaluation.published import TABLES, published_for
from cssta.evaluation.run import Completed, Task, evaluate, vfid
from cssta.evaluation.sequences import Footage, find_sequences
from cssta.evaluation.tables import Evaluation

EXAMPLES = f"""\
  cssta evaluate DAVIS                                    paper protocol, default weights, baselines
  cssta evaluate DAVIS --holes objects --model my-model
  cssta evaluate DAVIS --protocol e2fgvi --masks test_masks/davis
  cssta evaluate DAVIS --results their=results/their-method --methods telea
  cssta evaluate DAVIS --table 3 --model full=a --model "without the CSSTA layer=b"
  cssta evaluate DAVIS --lpips alexnet-owt-7be5be79.pth --vfid i3d_torchscript.pt

methods: {", ".join(NAMES)}
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `evaluate` to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model, results or baselines on a data set",
        description="Score models, baselines or folders of results, on the same holes for all.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "data", type=Path, help="DAVIS, YouTube-VOS, or a folder of videos or frame folders"
    )
    parser.add_argument(
        "--table",
        type=int,
        choices=TABLES,
        help="a table of the paper: sets protocol, holes and methods",
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="(default: paper)")
    parser.add_argument(
        "--holes", choices=("freeform", "objects"), help="drawn holes, where the protocol's differ"
    )
    parser.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="holes: NAME/, NAME.png or NAME.mp4 in here"
    )
    parser.add_argument("--seed", type=int, default=0, help="of free-form holes (default: 0)")
    parser.add_argument(
        "--methods",
        metavar="A,B",
        help="comma-separated (default: all baselines, network and cssta; none beside --results)",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="model folder, several to compare (default: the shipped weights)",
    )
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="completed clips to score: NAME/ or NAME.mp4 per sequence",
    )
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N of each")
    parser.add_argument(
        "--lpips", type=Path, metavar="FILE", help="torchvision's AlexNet, VGG16 or SqueezeNet"
    )
    parser.add_argument(
        "--vfid", type=Path, metavar="FILE", help="I3D as TorchScript: also measure VFID"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), help="folder (default: evaluation)"
    )
    parser.add_argument(
        "--figures", type=int, default=3, metavar="N", help="sequences to picture (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell more")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print a table and write evaluation.md, .csv, .json, report.html and pictures.

    Raises VideoError for footage that is not there, CheckpointError for a model that is none;
    exits for options that do not go together.
    """
    footage = find_sequences(args.data)
    try:
        if args.sequences:
            footage = footage.chosen(args.sequences)
        given = args.masks is not None
        chosen = choose_protocol(
            args.protocol, args.table, args.holes, args.seed, given_masks=given
        )
        methods, models = _methods(args)
        perception = Networks(args.lpips, args.vfid).load(args.device)
    except CheckpointError:
        raise
    except ValueError as error:
        sys.exit(f"cssta evaluate: {error}")
    task = Task(
        footage=footage,
        protocol=chosen,
        methods=methods,
        folders=[(name, ResultsFolder(Path(path))) for name, path in named(args.results)],
        longest=args.frames,
        mask_folder=args.masks,
        perception=perception,
    )
    features = []
    pictures: dict[str, Path] = {}
    seen = Inpainter.load(models[0][1], args.device) if args.figures and models else None

    def draw(completed: Completed) -> None:
        features.append(completed.features)
        if len(features) <= args.figures:
            pictures.update(draw_all(args.output / "figures", completed, seen))

    def told(score) -> None:
        if not args.json:
            print(
                f"{score.sequence}  {score.method}: PSNR {score.psnr:.2f}, SSIM {score.ssim:.4f}, "
                f"hole PSNR {score.hole_psnr:.2f}, masks {score.masks}",
                flush=True,
            )

    scores, failed = evaluate(task, draw, told)
    if not scores:
        sys.exit("cssta evaluate: nothing could be scored\n  " + "\n  ".join(failed))
    result = Evaluation(
        title=TABLES[args.table].title if args.table else f"Evaluation by {chosen.name}",
        caption=_caption(args, chosen, footage, methods, models, perception),
        scores=tuple(scores),
        published=TABLES[args.table].rows
        if args.table
        else published_for(chosen.name, chosen.holes),
        failed=tuple(failed),
        vfid=vfid(features),
    )
    write_evaluation(result, args.output, pictures)
    if args.json:
        print(result.json())
        return
    print("\n" + "\n".join(result.caption))
    if rows := result.beside_table():
        print("\n".join(["\nbeside the paper, ours pooled over all frames\n", *rows]))
    for pooled, heading in ((True, "pooled over all frames"), (False, "mean of sequences")):
        print("\n".join([f"\n{heading}\n", *result.means_table(pooled=pooled)]))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    print(f"\nreport: {args.output / 'report.html'}")


def _methods(args: argparse.Namespace) -> tuple[list[Method], list[tuple[str, str | None]]]:
    """Methods, and the models that they need: labels and folders. Raises ValueError."""
    names = choose_methods(
        args.methods, args.table, results=bool(args.results), model=bool(args.model)
    )
    methods = [BASELINES[name] for name in names if name in BASELINES]
    parts = [name for name in names if name in PARTS]
    table = TABLES[args.table] if args.table and args.methods is None else None
    models: list[tuple[str, str | None]] = [*named(args.model)] if args.model else [("", None)]
    if len(models) == 1 and "=" not in "".join(args.model):
        models = [("", models[0][1])]
    for number, (label, folder) in enumerate(models):
        chosen = table.others if number and table and table.others else parts
        lenient = args.methods is None
        methods += model_methods(chosen, folder, label, args.device, lenient=lenient)
    return methods, models if parts else []


def _caption(
    args: argparse.Namespace,
    chosen: Protocol,
    footage: Footage,
    methods: list[Method],
    models: list[tuple[str, str | None]],
    perception: Perception,
) -> tuple[str, ...]:
    frames = f"the first {args.frames} frames" if args.frames else "all frames"
    lines = [
        f"{chosen.describe()[0].upper()}{chosen.describe()[1:]}.",
        f"Footage: {args.data.name} ({footage.layout}), {len(footage.sequences)} sequences, "
        f"{frames} of each.",
        *(describe_model(folder, label) for label, folder in models),
        "Methods: " + "; ".join(f"{method.name}: {method.note}" for method in methods) + ".",
        *(f"{part.note}." for part in (perception.lpips, perception.features) if part),
        describe_machine(args.device),
    ]
    return tuple(lines)
