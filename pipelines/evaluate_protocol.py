"""A named protocol over a cluster: Ray Data over sequences, `cssta evaluate`'s methods in each.

Footage, masks and results are read where they are scored, from a bucket or a folder that every
node reaches. Numbers are those of `cssta evaluate` on one machine: holes depend on protocol, seed
and names alone.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cssta.engine import Inpainter
from cssta.evaluation.choice import ChoiceError, check_distinct, check_folders
from cssta.evaluation.figures import draw_all
from cssta.evaluation.methods import (
    BASELINES,
    PARTS,
    Method,
    ResultsFolder,
    check_names,
    model_methods,
)
from cssta.evaluation.perceptual import Networks, Perception
from cssta.evaluation.protocols import Protocol
from cssta.evaluation.provenance import (
    describe_footage,
    describe_machine,
    describe_methods,
    describe_model,
    describe_results,
)
from cssta.evaluation.published import TABLES, published_for
from cssta.evaluation.run import Completed, Task, in_words, score_one, vfid
from cssta.evaluation.scoring import METRICS, SequenceScore
from cssta.evaluation.tables import Evaluation
from pipelines.actors import CRASHED, ModelActor, map_rows, pack_model
from pipelines.config import JobConfig
from pipelines.evaluation_footage import Bucket, find_footage, named_files

FIGURES = 3  # sequences with a picture
NO_NETWORKS = Networks()


class ProtocolError(ValueError):
    """An evaluation that cannot start; the message names what is wrong and the remedy."""


@dataclass(frozen=True)
class Settings:
    """What an actor is told: `task` without its methods, footage and masks, and where these are."""

    task: Task
    bucket: Bucket
    methods: tuple[str, ...]
    masks: str | None
    results: tuple[tuple[str, str], ...]
    networks: Networks
    label: str


def evaluate_protocol(
    cfg: JobConfig,
    model_folder: str | Path | None,
    data: str,
    protocol: Protocol,
    methods: Sequence[str],
    *,
    pictures: Path,
    longest: int | None = None,
    mask_folder: str | None = None,
    results: Sequence[tuple[str, str]] = (),
    networks: Networks = NO_NETWORKS,
    label: str = "",
    table: int | None = None,
    on_sequence: Callable[[str, int, int], None] = lambda name, position, total: None,
) -> tuple[Evaluation, dict[str, Path]]:
    """Score methods by a protocol; a sequence that fails is named, not fatal.

    `model_folder`: None where no method is a model's. `data`, `mask_folder` and those of `results`
    (by the name of what made them): local or s3://. `networks`: for LPIPS and VFID, paths that
    every node reaches. `label`: the model's name in tables. `table`: of the paper. `pictures`: a
    local folder for panels of the first sequences, which are returned by caption. Needs a connected
    Ray. Raises ProtocolError, ChoiceError, FootageError, StorageError, PerceptualError or
    ModelFolderError.
    """
    try:
        check_names(methods)
        check_folders(results)
        check_distinct([*methods, *(name for name, _ in results)])
    except ChoiceError:
        raise
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    parts = set(methods) & set(PARTS)
    if parts and model_folder is None:
        raise ProtocolError(f"{', '.join(sorted(parts))}: needs a model; name its folder")
    bucket = find_footage(data, cfg.data.s3_endpoint)
    perception = networks.load()  # (what is wrong with them is told now, not by every actor)
    footage = bucket.footage
    task = Task(footage, protocol, longest=longest)
    total = len(footage.sequences)
    rows = [{"number": str(number)} for number in range(total)]
    settings = Settings(task, bucket, tuple(methods), mask_folder, tuple(results), networks, label)
    files = pack_model(Path(model_folder)) if parts else {}
    found: dict[int, list[SequenceScore]] = {}
    features: dict[int, dict[str, np.ndarray]] = {}
    failed: dict[int, list[str]] = {}
    drawn: dict[str, Path] = {}
    machines: set[str] = set()
    load = partial(load_methods, tuple(methods), label)
    scored = map_rows(cfg, rows, ProtocolScorer, settings, files, load, FIGURES)
    for position, row in enumerate(scored.iter_rows(), start=1):
        number, content = int(row["number"]), json.loads(row["result"])
        name = footage.sequences[number].name
        if "error" in content:
            failed[number] = [f"{name}: {content['error']}"]
        else:
            failed[number] = [f"{name}: {problem}" for problem in content["failed"]]
            found[number] = [SequenceScore(**score) for score in content["scores"]]
            features[number] = {k: np.array(v) for k, v in content["features"].items()}
            machines.add(content["machine"])
        if row["pictures"]:
            with zipfile.ZipFile(io.BytesIO(row["pictures"])) as archive:
                archive.extractall(pictures)
            drawn |= {caption: pictures / file for caption, file in content["captions"].items()}
        on_sequence("; ".join(failed[number]) or name, position, total)
    paper = TABLES[table] if table else None
    evaluation = Evaluation(
        title=paper.title if paper else f"Evaluation by {protocol.name}",
        caption=(
            f"{protocol.describe()[0].upper()}{protocol.describe()[1:]}.",
            describe_footage(Path(data).name, footage.layout, total, longest),
            *([describe_model(model_folder, label)] if parts else []),
            *_notes(found, results, perception),
            *sorted(machines),
        ),
        scores=tuple(score for number in sorted(found) for score in found[number]),
        published=paper.rows if paper else published_for(protocol.name, protocol.holes),
        failed=tuple(problem for number in sorted(failed) for problem in failed[number]),
        vfid=vfid([features[number] for number in sorted(features)]),
    )
    return evaluation, dict(sorted(drawn.items()))


def _notes(
    scores: Mapping[int, Sequence[SequenceScore]],
    results: Sequence[tuple[str, str]],
    perception: Perception,
) -> list[str]:
    notes = {**{m.name: m.note for m in BASELINES.values()}, **PARTS}
    clips = {name: describe_results(folder) for name, folder in results}
    names = dict.fromkeys(score.method for number in sorted(scores) for score in scores[number])
    told = {
        name: clips.get(name) or notes.get(name.rpartition(": ")[2], PARTS["cssta"])
        for name in names
    }
    networks = [part.note for part in (perception.lpips, perception.features) if part]
    return [*describe_methods(told), *(f"{note}." for note in networks)]


@dataclass(frozen=True)
class Loaded:
    """What an actor holds: those of the methods that the model has, and the model for pictures."""

    methods: list[Method]
    inpainter: Inpainter | None


def load_methods(names: Sequence[str], label: str, folder: Path, device: str) -> Loaded:
    """From a model folder, in an actor; no model is loaded for baselines alone."""
    parts = [name for name in names if name in PARTS]
    methods = model_methods(parts, folder, label, device, lenient=True)
    return Loaded(methods, Inpainter.load(folder, device) if parts else None)


class ProtocolScorer(ModelActor):
    """Actor that scores all methods on one sequence per call; its settings are `Settings`."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        settings: Settings = self.settings
        name = settings.task.footage.sequences[number].name
        if not self.may_start(name):
            return _row(number, {"error": CRASHED})
        try:
            completed, scores, failed = self._score(number)
        except Exception as error:  # one sequence must not end the evaluation of the others
            return _row(number, {"error": in_words(error)})
        captions, pictures = {}, b""
        try:
            if self.claim(name):
                captions, pictures = self._draw(completed)
        except Exception as error:  # pictures must not cost the scores
            failed = [*failed, f"pictures: {in_words(error)}"]
        content = {
            "scores": [asdict(score) for score in scores],
            "failed": failed,
            "features": {key: value.tolist() for key, value in completed.features.items()},
            "machine": describe_machine(),
            "captions": captions,
        }
        return _row(number, content, pictures)

    def _draw(self, completed: Completed) -> tuple[dict[str, str], bytes]:
        """File names by caption, and the files in an archive."""
        archive = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive, "w") as files:
            drawn = draw_all(Path(folder), completed, self.engine.inpainter)
            for path in drawn.values():
                files.write(path, path.name)
        return {caption: path.name for caption, path in drawn.items()}, archive.getvalue()

    def _score(self, number: int) -> tuple[Completed, list[SequenceScore], list[str]]:
        settings: Settings = self.settings
        name, endpoint = settings.bucket.footage.sequences[number].name, settings.bucket.endpoint
        own: dict[str, Method] = {one.part: one for one in self.engine.methods}
        known = {**BASELINES, **own}
        with ExitStack() as stack:
            objects = settings.task.protocol.holes == "objects"
            task = replace(
                settings.task,
                footage=stack.enter_context(settings.bucket.at(number, objects=objects)),
                methods=[known[name] for name in settings.methods if name in known],
                folders=[
                    (
                        made_by,
                        ResultsFolder(stack.enter_context(named_files(folder, name, endpoint))),
                    )
                    for made_by, folder in settings.results
                ],
                mask_folder=stack.enter_context(named_files(settings.masks, name, endpoint)),
                perception=self._perception(),
            )
            return score_one(task, number)

    def _perception(self) -> Perception:
        if not hasattr(self, "perception"):
            self.perception = self.settings.networks.load()
        return self.perception


def _row(number: int, content: dict[str, Any], pictures: bytes = b"") -> dict[str, Any]:
    return {"number": str(number), "result": json.dumps(content), "pictures": pictures}


def flat_metrics(evaluation: Evaluation) -> dict[str, float]:
    """`<method>_<metric>`, pooled, and `mean_<method>_<metric>` for MLflow; without nan."""
    found: dict[str, float] = {}
    for pooled, prefix in ((True, ""), (False, "mean_")):
        for one in evaluation.means(pooled=pooled):
            for key in (*METRICS, "seconds", "seconds_per_frame"):
                found[f"{prefix}{_key(one.method)}_{key}"] = getattr(one, key)
    found |= {f"{_key(method)}_vfid": value for method, value in evaluation.vfid.items()}
    counts = {"videos": len(evaluation.sequences), "failed": len(evaluation.failed)}
    return {k: float(v) for k, v in {**found, **counts}.items() if v == v}


def _key(method: str) -> str:
    """A method's name as MLflow takes it."""
    return re.sub(r"[^\w.-]+", "-", method)
