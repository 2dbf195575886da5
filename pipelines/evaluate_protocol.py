"""A named protocol over a cluster: Ray Data over sequences, `cssta evaluate`'s methods in each.

The footage is read where it is scored, so its folder must be one that every node reaches. Numbers
are those of `cssta evaluate` on one machine: holes depend on protocol, seed and names alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cssta.evaluation.figures import panels
from cssta.evaluation.methods import BASELINES, PARTS, check_names, methods_of
from cssta.evaluation.protocols import Protocol
from cssta.evaluation.provenance import describe_machine, describe_model
from cssta.evaluation.published import published_for
from cssta.evaluation.run import Completed, Task, score_one
from cssta.evaluation.scoring import METRICS, SequenceScore
from cssta.evaluation.sequences import find_sequences
from cssta.evaluation.tables import Evaluation
from cssta.video import VideoError
from pipelines.actors import CRASHED, LoadEngine, ModelActor, load_inpainter, map_rows, pack_model
from pipelines.config import JobConfig

FIGURES = 3  # sequences with a picture


class ProtocolError(ValueError):
    """An evaluation that cannot start; the message names what is wrong and the remedy."""


@dataclass(frozen=True)
class Settings:
    """What an actor is told: the task without its methods, and their names."""

    task: Task
    methods: tuple[str, ...]


def evaluate_protocol(
    cfg: JobConfig,
    model_folder: str | Path,
    data: str,
    protocol: Protocol,
    methods: Sequence[str],
    *,
    pictures: Path,
    longest: int | None = None,
    mask_folder: str | None = None,
    on_sequence: Callable[[str, int, int], None] = lambda name, position, total: None,
    load_engine: LoadEngine = load_inpainter,
) -> tuple[Evaluation, dict[str, Path]]:
    """Score methods by a protocol; a sequence that fails is named, not fatal.

    `pictures`: a local folder for panels of the first sequences, which are returned by caption.
    Needs a connected Ray. Raises ProtocolError, or ModelFolderError.
    """
    if "://" in data or "://" in (mask_folder or ""):
        raise ProtocolError(
            f"{data}: a protocol's footage and masks are read from a folder that all nodes reach; "
            "mount or copy the bucket"
        )
    try:
        check_names(methods)
        footage = find_sequences(data)
    except (VideoError, ValueError) as error:
        raise ProtocolError(str(error)) from error
    masks = Path(mask_folder) if mask_folder else None
    task = Task(footage, protocol, longest=longest, mask_folder=masks)
    total = len(footage.sequences)
    rows = [{"number": str(number)} for number in range(total)]
    settings = Settings(task, tuple(methods))
    files = pack_model(Path(model_folder))
    found: dict[int, list[SequenceScore]] = {}
    failed: dict[int, str] = {}
    drawn: dict[str, Path] = {}
    machines: set[str] = set()
    scored = map_rows(cfg, rows, ProtocolScorer, settings, files, load_engine, FIGURES)
    for position, row in enumerate(scored.iter_rows(), start=1):
        number, content = int(row["number"]), json.loads(row["result"])
        name = footage.sequences[number].name
        if "error" in content:
            failed[number] = f"{name}: {content['error']}"
        else:
            found[number] = [_score(score) for score in content["scores"]]
            machines.add(content["machine"])
        if row["picture"]:
            pictures.mkdir(parents=True, exist_ok=True)
            drawn[f"{name}: every 10th frame"] = path = pictures / f"{name}.png"
            path.write_bytes(row["picture"])
        on_sequence(failed.get(number, name), position, total)
    notes = {**{m.name: m.note for m in BASELINES.values()}, **PARTS}
    frames = f"the first {longest} frames" if longest else "all frames"
    evaluation = Evaluation(
        title=f"Evaluation by {protocol.name}",
        caption=(
            f"{protocol.describe()}.",
            f"Footage: {Path(data).name} ({footage.layout}), {total} sequences, {frames} of each.",
            describe_model(model_folder),
            "Methods: " + "; ".join(f"{name}: {notes[name]}" for name in methods) + ".",
            *sorted(machines),
        ),
        scores=tuple(score for number in sorted(found) for score in found[number]),
        published=published_for(protocol.name, protocol.holes),
        failed=tuple(failed[number] for number in sorted(failed)),
    )
    return evaluation, dict(sorted(drawn.items()))


class ProtocolScorer(ModelActor):
    """Actor that scores all methods on one sequence per call; its settings are `Settings`."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        settings: Settings = self.settings
        name = settings.task.footage.sequences[number].name
        if not self.may_start(name):
            return _row(number, {"error": CRASHED})
        try:
            completed, scores = score_one(self._task(), number)
            picture = _panels(completed) if self.claim(name) else b""
        except Exception as error:  # one sequence must not end the evaluation of the others
            return _row(number, {"error": f"{type(error).__name__}: {error}"})
        content = {"scores": [asdict(score) for score in scores], "machine": describe_machine()}
        return _row(number, content, picture)

    def _task(self) -> Task:
        methods = []
        for name in self.settings.methods:
            methods += [BASELINES[name]] if name in BASELINES else methods_of(self.engine, [name])
        return replace(self.settings.task, methods=methods)


def _row(number: int, content: dict[str, Any], picture: bytes = b"") -> dict[str, Any]:
    return {"number": str(number), "result": json.dumps(content), "picture": picture}


def _score(content: dict[str, Any]) -> SequenceScore:
    return SequenceScore(**content)


def _panels(completed: Completed) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return panels(Path(folder) / "panels.png", completed).read_bytes()


def flat_metrics(evaluation: Evaluation) -> dict[str, float]:
    """`<method>_<metric>`, pooled, and `mean_<method>_<metric>` for MLflow; without nan."""
    found: dict[str, float] = {}
    for pooled, prefix in ((True, ""), (False, "mean_")):
        for one in evaluation.means(pooled=pooled):
            for key in (*METRICS, "seconds"):
                found[f"{prefix}{one.method}_{key}"] = getattr(one, key)
    counts = {"videos": len(evaluation.sequences), "failed": len(evaluation.failed)}
    return {k: float(v) for k, v in {**found, **counts}.items() if v == v}
