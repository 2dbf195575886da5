"""An evaluation's results as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from cssta.evaluation.beside import Line, as_table, pair
from cssta.evaluation.markdown import number, plain, table
from cssta.evaluation.published import FRAMES_PER_VIDEO, Published
from cssta.evaluation.scoring import METRICS, Mean, SequenceScore, mean

HEADS = ("PSNR", "SSIM", "hole PSNR", "warping error x1000", "s / video", "s / frame")
# What the table's warping error is, and is not.
WARPING = (
    "Warping error: mean square in [0, 1] of what differs from the frame before, in the hole, by "
    "the true clip's own flow (OpenCV's DIS). The field's E_warp takes FlowNet2 and whole frames."
)
UNEVEN = (
    "Not every method was scored on every sequence (see Failed): its means are of those that it "
    "was scored on, and not to be held against the others'."
)


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run, and what has to be said with them.

    `caption`: sentences: protocol, footage, what was trained on what, machine. `failed`: what could
    not be scored, and why. `vfid`: by method, where there are weights for it.
    """

    title: str
    caption: tuple[str, ...]
    scores: tuple[SequenceScore, ...]
    published: tuple[Published, ...] = ()
    failed: tuple[str, ...] = ()
    vfid: Mapping[str, float] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order in which they were scored."""
        return tuple(dict.fromkeys(score.method for score in self.scores))

    @property
    def sequences(self) -> tuple[str, ...]:
        """In the order in which they were scored."""
        return tuple(dict.fromkeys(score.sequence for score in self.scores))

    def of(self, method: str) -> list[SequenceScore]:
        """A method's scores."""
        return [score for score in self.scores if score.method == method]

    def means(self, *, pooled: bool) -> list[Mean]:
        """One per method: pooled over all frames, or of the sequences' means."""
        return [mean(self.of(method), pooled=pooled) for method in self.methods]

    def markdown(self) -> str:
        """Means beside published figures, then every sequence, then the masks' digests."""
        lines = [f"# {self.title}", "", *(f"- {text}" for text in self._caption())]
        if rows := as_table(self.beside()):
            lines += ["", "## Beside the paper", "", *rows]
            lines += ["", "Ours pooled over all frames; the paper's holes and footage are its own."]
            lines += self.timing()
        for pooled, title in ((True, "Pooled over all frames"), (False, "Mean of sequences")):
            lines += ["", f"## {title}", "", *self.means_table(pooled=pooled)]
        if self.published and not rows:
            lines += ["", "## Published (the authors' own figures, their holes and footage)", ""]
            lines += table(
                ("method", "data", "PSNR", "SSIM", "s / video"),
                [
                    [row.method, row.data, f"{row.psnr:g}", f"{row.ssim:g}", plain(row.seconds)]
                    for row in self.published
                ],
            )
            lines += ["", *self.timing()]
        rows = [
            [sequence, score.method, *self._cells(score)]
            for sequence in self.sequences
            for score in self.scores
            if score.sequence == sequence
        ]
        heads = ("sequence", "method", *self._heads())
        lines += ["", "## By sequence", "", *table(heads, rows)]
        lines += ["", "## Holes", "", *self._holes()]
        if self.failed:
            lines += ["", "## Failed", "", *(f"- {text}" for text in self.failed)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line per sequence and method, then the means as sequences `*pooled*`, `*mean*`.

        Blank where nothing could be measured.
        """
        text = io.StringIO()
        columns = ["sequence", "method", "frames", "holes", "hole_ratio", "masks", *METRICS]
        columns += ["vfid", "seconds", "seconds_per_frame"]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for score in self.scores:
            row = asdict(score) | {"seconds_per_frame": score.seconds_per_frame}
            writer.writerow(_without_nan(row))
        for pooled, name in ((True, "*pooled*"), (False, "*mean*")):
            for one in self.means(pooled=pooled):
                row = asdict(one) | {"sequence": name, "holes": one.frames, "masks": ""}
                row["vfid"] = self.vfid.get(one.method, math.nan)
                row = {k: v for k, v in row.items() if k not in ("pooled", "sequences")}
                writer.writerow(_without_nan(row))
        return text.getvalue()

    def json(self) -> str:
        """Everything, with null for nan."""
        content = asdict(self) | {
            "pooled": [asdict(one) for one in self.means(pooled=True)],
            "mean": [asdict(one) for one in self.means(pooled=False)],
        }
        return json.dumps(_without_nan(content), indent=1, allow_nan=False)

    def beside(self) -> list[Line]:
        """Our methods beside the paper's rows; [] where nothing of ours has a counterpart."""
        return pair(self.means(pooled=True), self.published)

    def timing(self) -> list[str]:
        """A sentence on what seconds beside the paper's are of; none where it gives no seconds."""
        if not self.scores or all(row.seconds is None for row in self.published):
            return []
        frames = fmean([self._first(name).frames for name in self.sequences])
        return [
            f"Seconds per video: ours are of {frames:.4g} frames on average, on the machine named "
            f"above; the paper's of {FRAMES_PER_VIDEO:g} on average, on its GPUs."
        ]

    def means_table(self, *, pooled: bool) -> list[str]:
        """The short table, as for the terminal."""
        vfid = ("VFID",) if self.vfid else ()
        rows = []
        for one in self.means(pooled=pooled):
            more = [number(self.vfid.get(one.method, math.nan), 3)] if vfid else []
            rows.append([one.method, *self._cells(one), *more])
        return table(("method", *self._heads(), *vfid), rows)

    def _caption(self) -> list[str]:
        scored = {frozenset(s.sequence for s in self.of(method)) for method in self.methods}
        return [*self.caption, WARPING, *self._absent(), *([UNEVEN] if len(scored) > 1 else [])]

    def _absent(self) -> list[str]:
        """By weights that the user supplies: what is not measured is not guessed, but said."""
        there = {"LPIPS": self._has_lpips(), "VFID": bool(self.vfid)}
        missing = [name for name, known in there.items() if not known]
        if not missing:
            return []
        are = "are" if len(missing) > 1 else "is"
        return [f"{' and '.join(missing)} {are} absent: no weights were given."]

    def _has_lpips(self) -> bool:
        return any(math.isfinite(score.lpips) for score in self.scores)

    def _heads(self) -> tuple[str, ...]:
        return (*HEADS, "LPIPS") if self._has_lpips() else HEADS

    def _cells(self, row: Mean | SequenceScore) -> list[str]:
        numbers = (
            (row.psnr, 2), (row.ssim, 4), (row.hole_psnr, 2), (row.warping_error, 2),
            (row.seconds, 1), (row.seconds_per_frame, 3), (row.lpips, 4),
        )  # fmt: skip
        return [number(*cell) for cell in numbers[: len(self._heads())]]

    def _first(self, sequence: str) -> SequenceScore:
        return next(score for score in self.scores if score.sequence == sequence)

    def _holes(self) -> list[str]:
        firsts = [self._first(name) for name in self.sequences]
        rows = [
            [
                s.sequence,
                str(s.frames),
                str(s.holes),
                number(100 * s.hole_ratio, 1),
                f"`{s.masks}`",
            ]
            for s in firsts
        ]
        return table(("sequence", "frames", "with a hole", "hole %", "masks"), rows)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
