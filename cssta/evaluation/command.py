"""`cssta evaluate`: score models, baselines or a folder of results by a named protocol."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cssta.checkpoint import CheckpointError
from cssta.engine import Inpainter
from cssta.evaluation.beside import as_table
from cssta.evaluation.choice import (
    check_distinct,
    check_folders,
    choose_methods,
    choose_protocol,
    named,
    split_name,
)
from cssta.evaluation.figures import Look, draw_all
from cssta.evaluation.html_report import write_evaluation
from cssta.evaluation.methods import (
    BASELINES,
    NAMES,
    PARTS,
    Method,
    ResultsFolder,
    model_methods,
)
from cssta.evaluation.perceptual import Networks
from cssta.evaluation.protocols import PROTOCOLS
from cssta.evaluation.provenance import (
    describe_footage,
    describe_machine,
    describe_methods,
    describe_model,
    describe_results,
)
from cssta.evaluation.published import TABLES, published_for
from cssta.evaluation.run import Completed, Task, evaluate, in_words, vfid
from cssta.evaluation.scoring import SequenceScore
from cssta.evaluation.sequences import find_sequences
from cssta.evaluation.tables import Evaluation

EXAMPLES = f"""\
  cssta evaluate DAVIS                                    paper protocol, default weights, baselines
  cssta evaluate DAVIS --holes objects --model my-model
  cssta evaluate DAVIS --protocol e2fgvi --masks test_masks/davis
  cssta evaluate DAVIS --results their=results/their-method --methods telea
  cssta evaluate DAVIS --table 3 --model full=a --model "without the CSSTA layer=b"
  cssta evaluate DAVIS --methods network --look dog:20,120,96
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
    parser.add_argument(
        "--look",
        metavar="SEQUENCE:FRAME,Y,X",
        help="hole pixel, in the protocol's size, whose attention is drawn (default: the middle)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell more")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print a table and write evaluation.md, .csv, .json, report.html and pictures.

    What is written is up to date after every sequence; pictures are in the report at the end.
    Raises VideoError for footage that is not there, CheckpointError for a model that is none; exits
    for options that do not go together.
    """
    footage = find_sequences(args.data)
    try:
        if args.sequences:
            footage = footage.chosen(args.sequences)
        given = args.masks is not None
        chosen = choose_protocol(
            args.protocol, args.table, args.holes, args.seed, given_masks=given
        )
        folders = named(args.results)
        methods, models = _methods(args, folders)
        perception = Networks(args.lpips, args.vfid).load(args.device)
        task = Task(
            footage=footage,
            protocol=chosen,
            methods=methods,
            folders=[(name, ResultsFolder(Path(path))) for name, path in folders],
            longest=args.frames,
            mask_folder=args.masks,
            perception=perception,
        )
        look = _look(args.look, task, models)
    except CheckpointError:
        raise
    except ValueError as error:
        sys.exit(f"cssta evaluate: {error}")
    caption = _caption(args, task, folders, models)
    features = []
    pictures: dict[str, Path] = {}
    wanted = bool(args.figures or look) and models
    seen = Inpainter.load(models[0][1], args.device) if wanted else None

    def result(scores: list[SequenceScore], failed: list[str], *more: str) -> Evaluation:
        paper = TABLES[args.table] if args.table else None
        return Evaluation(
            title=paper.title if paper else f"Evaluation by {chosen.name}",
            caption=(*caption, *more),
            scores=tuple(scores),
            published=paper.rows if paper else published_for(chosen.name, chosen.holes),
            failed=tuple(failed),
            vfid=vfid(features),
        )

    def keep(completed: Completed, scores: list[SequenceScore], failed: list[str]) -> None:
        features.append(completed.features)
        if len(features) <= args.figures or (look and look.sequence == completed.name):
            try:
                pictures.update(draw_all(args.output / "figures", completed, seen, look))
            except Exception as error:  # pictures must not cost the scores
                failed.append(f"{completed.name}: pictures: {in_words(error)}")
        if scores:
            done = f"{len(features)} of {len(footage.sequences)} sequences"
            unfinished = result(scores, failed, f"Unfinished: these are the first {done}.")
            write_evaluation(unfinished, args.output, {})

    def told(score) -> None:
        if not args.json:
            print(
                f"{score.sequence}  {score.method}: PSNR {score.psnr:.2f}, SSIM {score.ssim:.4f}, "
                f"hole PSNR {score.hole_psnr:.2f}, masks {score.masks}",
                flush=True,
            )

    scores, failed = evaluate(task, keep, told)
    if not scores:
        sys.exit("cssta evaluate: nothing could be scored\n  " + "\n  ".join(failed))
    whole = result(scores, failed)
    write_evaluation(whole, args.output, pictures)
    if args.json:
        print(whole.json())
        return
    print("\n" + "\n".join(whole.caption))
    if rows := as_table(whole.beside()):
        rows += ["", *whole.timing()]
        print("\n".join(["\nbeside the paper, ours pooled over all frames\n", *rows]))
    for pooled, heading in ((True, "pooled over all frames"), (False, "mean of sequences")):
        print("\n".join([f"\n{heading}\n", *whole.means_table(pooled=pooled)]))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    print(f"\nreport: {args.output / 'report.html'}")


def _look(text: str | None, task: Task, models: list[tuple[str, str | None]]) -> Look | None:
    """Raises ValueError for what is no hole pixel, now rather than after an hour."""
    if text is None:
        return None
    look = Look.parse(text)
    names = [sequence.name for sequence in task.footage.sequences]
    if look.sequence not in names:
        raise ValueError(f"--look: there is no sequence {look.sequence!r} among those chosen")
    if not models:
        raise ValueError("--look asks a model; choose a method of one, such as network")
    look.check(task.load(names.index(look.sequence))[1])
    return look


def _methods(
    args: argparse.Namespace, results: list[tuple[str, str]]
) -> tuple[list[Method], list[tuple[str, str | None]]]:
    """Methods, and the models that they need: labels and folders. Raises ValueError.

    `results` only have their names held against the others.
    """
    names = choose_methods(
        args.methods, args.table, results=bool(args.results), model=bool(args.model)
    )
    methods = [BASELINES[name] for name in names if name in BASELINES]
    parts = [name for name in names if name in PARTS]
    table = TABLES[args.table] if args.table and args.methods is None else None
    given = [split_name(args.model[0])] if len(args.model) == 1 else named(args.model)
    alone = len(given) == 1 and not given[0][0]  # (a model without a name needs none)
    check_folders([*([] if alone else given), *results])
    models: list[tuple[str, str | None]] = [*given] or [("", None)]
    for number, (label, folder) in enumerate(models):
        chosen = table.others if number and table and table.others else parts
        lenient = args.methods is None
        methods += model_methods(chosen, folder, label, args.device, lenient=lenient)
    check_distinct([*(method.name for method in methods), *(name for name, _ in results)])
    return methods, models if parts else []


def _caption(
    args: argparse.Namespace,
    task: Task,
    results: list[tuple[str, str]],
    models: list[tuple[str, str | None]],
) -> list[str]:
    described = task.protocol.describe()
    notes = {method.name: method.note for method in task.methods}
    notes |= {name: describe_results(folder) for name, folder in results}
    networks = (task.perception.lpips, task.perception.features) if task.perception else ()
    return [
        f"{described[0].upper()}{described[1:]}.",
        describe_footage(
            args.data.name, task.footage.layout, len(task.footage.sequences), args.frames
        ),
        *(describe_model(folder, label) for label, folder in models),
        *describe_methods(notes),
        *(f"{network.note}." for network in networks if network),
        describe_machine(args.device),
    ]
