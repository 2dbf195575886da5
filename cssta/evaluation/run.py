"""One evaluation on one machine: sequences in order, every method on the very same holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cssta.evaluation.methods import Method, ResultsFolder
from cssta.evaluation.perceptual import Perception, frechet_distance
from cssta.evaluation.protocols import Protocol, mask_digest
from cssta.evaluation.scoring import SequenceScore, composite, score_sequence, timed
from cssta.evaluation.sequences import Footage, holes_for, read_sequence
from cssta.video import VideoError

TRUTH = ""  # (no method is called so)


@dataclass(frozen=True)
class Completed:
    """A sequence, its holes and what each method made of it; uint8 (T, H, W, 3), bool (T, H, W).

    `features`: float64 (C,) per method, and the true clip's under TRUTH, where there is an I3D.
    """

    name: str
    frames: np.ndarray
    masks: np.ndarray
    results: dict[str, np.ndarray]
    features: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What is evaluated.

    `folders`: results by method name, scored as they lie there. `longest`: frames of each sequence,
    None: all. `mask_folder`: for the holes "folder". `perception`: networks of LPIPS and VFID.
    """

    footage: Footage
    protocol: Protocol
    methods: Sequence[Method] = ()
    folders: Sequence[tuple[str, ResultsFolder]] = ()
    longest: int | None = None
    mask_folder: Path | None = None
    perception: Perception | None = None

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames and holes of the sequence of that number. Raises VideoError."""
        sequence = self.footage.sequences[number]
        frames = read_sequence(sequence, self.protocol, self.longest)
        masks = holes_for(self.footage, sequence, self.protocol, len(frames), self.mask_folder)
        return frames, masks


def evaluate(
    task: Task,
    on_sequence: Callable[[Completed], None] = lambda completed: None,
    on_score: Callable[[SequenceScore], None] = lambda score: None,
) -> tuple[list[SequenceScore], list[str]]:
    """Scores in order of sequence and method, and what failed; one bad sequence ends nothing.

    `on_sequence` sees every completed sequence, for pictures; one is in memory at a time.
    """
    scores: list[SequenceScore] = []
    failed: list[str] = []
    for number in range(len(task.footage.sequences)):
        try:
            completed, found = score_one(task, number)
        except (VideoError, ValueError) as error:
            failed.append(f"{task.footage.sequences[number].name}: {error}")
            continue
        for score in found:
            scores.append(score)
            on_score(score)
        on_sequence(completed)
    return scores, failed


def score_one(task: Task, number: int) -> tuple[Completed, list[SequenceScore]]:
    """All methods on one sequence. Raises VideoError or ValueError."""
    name = task.footage.sequences[number].name
    frames, masks = task.load(number)
    digest = mask_digest(masks)
    results: dict[str, np.ndarray] = {}
    scores: list[SequenceScore] = []

    def keep(method: str, result: np.ndarray, **seconds: float) -> None:
        results[method] = composite(result, frames, masks)
        scores.append(
            score_sequence(
                name, method, result, frames, masks,
                digest=digest, window=task.protocol.window, perception=task.perception, **seconds,
            )
        )  # fmt: skip

    for method in task.methods:
        result, seconds = timed(method.complete, frames, masks)
        keep(method.name, result, seconds=seconds)
    for label, folder in task.folders:
        keep(label, folder.read(name, len(frames), task.protocol))
    features = {}
    if masks.any() and task.perception and task.perception.features:
        clips = {TRUTH: frames, **results}
        features = {key: task.perception.features(clip) for key, clip in clips.items()}
    return Completed(name, frames, masks, results, features), scores


def vfid(features: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """By method, from `Completed.features` of all sequences; empty where there are none."""
    found = [one for one in features if one]
    methods = [key for key in (found[0] if found else {}) if key != TRUTH]
    truth = [one[TRUTH] for one in found]
    return {key: frechet_distance(truth, [one[key] for one in found]) for key in methods}
