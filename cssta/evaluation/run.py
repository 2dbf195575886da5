"""One evaluation on one machine: sequences in order, every method on the very same holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cssta.evaluation.methods import Method, ResultsFolder
from cssta.evaluation.perceptual import Perception, frechet_distance
from cssta.evaluation.protocols import Protocol, mask_digest
from cssta.evaluation.scoring import SequenceScore, composite, score_sequence, timed
from cssta.evaluation.sequences import Footage, holes_for, read_sequence
from cssta.metrics import movement
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
    on_sequence: Callable[[Completed, list[SequenceScore], list[str]], None] = lambda *seen: None,
    on_score: Callable[[SequenceScore], None] = lambda score: None,
) -> tuple[list[SequenceScore], list[str]]:
    """Scores in order of sequence and method, and what failed; one that fails ends nothing.

    `on_sequence` sees every completed sequence, of which one is in memory at a time, and all scores
    and failures so far.
    """
    scores: list[SequenceScore] = []
    failed: list[str] = []
    for number, sequence in enumerate(task.footage.sequences):
        try:
            completed, found, problems = score_one(task, number)
        except Exception as error:  # one sequence must not end the evaluation of the others
            failed.append(f"{sequence.name}: {in_words(error)}")
            continue
        failed += [f"{sequence.name}: {problem}" for problem in problems]
        for score in found:
            scores.append(score)
            on_score(score)
        on_sequence(completed, scores, failed)
    return scores, failed


def in_words(error: Exception) -> str:
    """Our own errors say what is wrong; of others, the type says more than the text."""
    known = isinstance(error, (VideoError, ValueError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def score_one(task: Task, number: int) -> tuple[Completed, list[SequenceScore], list[str]]:
    """All methods on one sequence, and which of them failed why.

    Raises VideoError or ValueError where the sequence itself, or its holes, cannot be read.
    """
    name = task.footage.sequences[number].name
    frames, masks = task.load(number)
    digest = mask_digest(masks)
    moves = movement(frames)
    results: dict[str, np.ndarray] = {}
    scores: list[SequenceScore] = []
    failed: list[str] = []

    def keep(method: str, result: np.ndarray, **seconds: float) -> None:
        score = score_sequence(
            name, method, result, frames, masks,
            digest=digest, window=task.protocol.window, perception=task.perception, moves=moves,
            **seconds,
        )  # fmt: skip
        scores.append(score)
        results[method] = composite(result, frames, masks)

    @contextmanager
    def told(method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # one method must not cost what the others have found
            failed.append(f"{method}: {in_words(error)}")

    for method in task.methods:
        with told(method.name):
            result, seconds = timed(method.complete, frames, masks)
            keep(method.name, result, seconds=seconds)
    for label, folder in task.folders:
        with told(label):
            keep(label, folder.read(name, len(frames), task.protocol))
    features = {}
    if masks.any() and task.perception and task.perception.features:
        clips = {TRUTH: frames, **results}
        with told("VFID"):
            features = {key: task.perception.features(clip) for key, clip in clips.items()}
    return Completed(name, frames, masks, results, features), scores, failed


def vfid(features: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """By method, from `Completed.features` of the sequences that it completed; {} for none."""
    methods = dict.fromkeys(key for one in features for key in one if key != TRUTH)
    found = {key: [one for one in features if key in one] for key in methods}
    return {
        key: frechet_distance([one[TRUTH] for one in clips], [one[key] for one in clips])
        for key, clips in found.items()
    }
