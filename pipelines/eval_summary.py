"""Scores of an evaluation: per video, their means, and the table and JSON that show them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.manifest import Rejected

METHODS = ("cssta", "telea")
METRICS = ("psnr", "ssim", "hole_psnr")


@dataclass(frozen=True)
class ClipScore:
    """One video's result. `scores` holds `<method>_<metric>`: PSNR in dB, SSIM in -1..1.

    `frames` were completed, `holes` of them have a hole (only these are scored); `seconds` is the
    model's time alone.
    """

    video: str
    frames: int
    holes: int
    hole_ratio: float
    seconds: float
    scores: dict[str, float]


@dataclass(frozen=True)
class EvalSummary:
    """Scores per video and their means; `failed` names what could not be measured."""

    videos: tuple[ClipScore, ...]
    failed: tuple[Rejected, ...]
    height: int
    width: int
    masks: str
    held_out: bool
    """False: the model may have been trained on these very videos."""

    def metrics(self) -> dict[str, float]:
        """Means, flat, for MLflow: pooled over all frames with a hole, and `video_mean_*`."""
        pooled = {key: _mean(self.videos, key, "frames") for key in _columns()}
        by_video = {f"video_mean_{key}": _mean(self.videos, key, "videos") for key in _columns()}
        frames = sum(score.frames for score in self.videos)
        seconds = sum(score.seconds for score in self.videos)
        rate = {"seconds_per_frame": seconds / frames} if frames else {}
        counts = {"videos": float(len(self.videos)), "failed": float(len(self.failed))}
        return {**pooled, **by_video, **rate, **counts}

    def markdown(self) -> str:
        """A table: one line per video, then the means of both kinds."""
        heads = [f"{method} PSNR / SSIM / hole PSNR" for method in METHODS]
        lines = [
            f"{len(self.videos)} videos at {self.width}x{self.height}, {self.masks} masks; means "
            "over frames with a hole.",
            "",
            "| video | frames | hole % | " + " | ".join(heads) + " | s / frame |",
            "| --- | --- | --- | " + "--- | " * len(heads) + "--- |",
        ]
        for score in self.videos:
            cells = [_cell(score.scores, method) for method in METHODS]
            rate = score.seconds / score.frames if score.frames else math.nan
            lines.append(
                f"| {score.video.replace('|', '/')} | {score.frames} | {100 * score.hole_ratio:.1f}"
                f" | {' | '.join(cells)} | {rate:.3f} |"
            )
        for name, prefix in (("all frames", ""), ("mean of videos", "video_mean_")):
            metrics = self.metrics()
            means = {key: metrics[prefix + key] for key in _columns()}
            cells = [_cell(means, method) for method in METHODS]
            lines.append(f"| **{name}** | | | {' | '.join(cells)} | |")
        if not self.held_out:
            lines += ["", "Not held out: there was no video to spare, these were trained on."]
        lines += ["", *(f"Failed ({bad.reason}): {bad.message}" for bad in self.failed)]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write evaluation.json and evaluation.md into a local folder."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"metrics": self.metrics(), **asdict(self)}
        as_json, as_markdown = folder / "evaluation.json", folder / "evaluation.md"
        as_json.write_text(json.dumps(_without_nan(content), indent=1), encoding="utf-8")
        as_markdown.write_text(self.markdown(), encoding="utf-8")
        return as_json, as_markdown


def describe_score(result: ClipScore | Rejected) -> str:
    """One line for a person who waits."""
    if isinstance(result, Rejected):
        return f"failed ({result.reason}): {result.message}"
    model, telea = (result.scores[f"{name}_hole_psnr"] for name in METHODS)
    return f"{result.video}: hole PSNR {model:.2f} dB, Telea {telea:.2f} dB"


def _columns() -> list[str]:
    return [f"{method}_{metric}" for method in METHODS for metric in METRICS]


def _mean(videos: Sequence[ClipScore], key: str, over: str) -> float:
    """Mean of video means, each counted once ("videos") or by its frames with a hole ("frames")."""
    scored = [video for video in videos if video.holes]
    if not scored:
        return math.nan
    weights = [video.holes if over == "frames" else 1 for video in scored]
    return float(np.average([video.scores[key] for video in scored], weights=weights))


def _cell(scores: dict[str, float], method: str) -> str:
    psnr, ssim, hole = (scores[f"{method}_{metric}"] for metric in METRICS)
    return f"{psnr:.2f} / {ssim:.4f} / {hole:.2f}"


def _without_nan(content: Any) -> Any:
    """The same with null for nan, which JSON does not have."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
