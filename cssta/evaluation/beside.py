"""Our means beside what was published of the methods in whose place ours stand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from cssta.evaluation.markdown import number, plain, table
from cssta.evaluation.published import FRAMES_PER_VIDEO, Published, counterpart
from cssta.evaluation.scoring import Mean

HEADS = (
    "method", "PSNR / SSIM", "s / video", "s / frame",
    "the paper's", "YouTube-VOS PSNR / SSIM", "DAVIS PSNR / SSIM", "s / video", "s / frame",
)  # fmt: skip
COLUMNS = (
    "method", "psnr", "ssim", "seconds", "seconds_per_frame",
    "published", "youtube_vos_psnr", "youtube_vos_ssim", "davis_psnr", "davis_ssim",
    "published_seconds", "published_seconds_per_frame",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A mean of ours, a published method, or both beside each other.

    `published`: its name, "" for none; `youtube` and `davis`: its figures, where there are any.
    """

    ours: Mean | None
    published: str
    youtube: Published | None
    davis: Published | None

    @property
    def seconds(self) -> float | None:
        """Published seconds per video."""
        rows = (row for row in (self.youtube, self.davis) if row)
        return next((row.seconds for row in rows if row.seconds is not None), None)

    @property
    def seconds_per_frame(self) -> float | None:
        """The same by the frames of the paper's videos."""
        return None if self.seconds is None else self.seconds / FRAMES_PER_VIDEO


def pair(means: Sequence[Mean], published: Sequence[Published]) -> list[Line]:
    """A line for each of our methods, then what is left of the published ones; [] where nothing of
    ours has a counterpart."""

    def line(ours: Mean | None, name: str) -> Line:
        known = {row.data: row for row in published if row.method == name}
        return Line(ours, name, known.get("YouTube-VOS"), known.get("DAVIS"))

    lines = [line(one, counterpart(one.method, published)) for one in means]
    found = {one.published for one in lines if one.published}
    if not found:
        return []
    names = dict.fromkeys(row.method for row in published)
    return lines + [line(None, name) for name in names if name not in found]


def as_table(lines: Sequence[Line]) -> list[str]:
    """As Markdown; [] for no lines."""
    rows = []
    for line in lines:
        ours = ["", "", "", ""]
        if line.ours:
            one = line.ours
            ours = [one.method, f"{number(one.psnr, 2)} / {number(one.ssim, 4)}"]
            ours += [number(one.seconds, 1), number(one.seconds_per_frame, 3)]
        both = [f"{r.psnr:g} / {r.ssim:g}" if r else "" for r in (line.youtube, line.davis)]
        theirs = [line.published, *both, plain(line.seconds), number(line.seconds_per_frame, 3)]
        rows.append([*ours, *theirs])
    return table(HEADS, rows) if rows else []


def as_csv(lines: Sequence[Line]) -> str:
    """As CSV, one number per column (COLUMNS), blank where it is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        one = line.ours
        ours = (one.psnr, one.ssim, one.seconds, one.seconds_per_frame) if one else [None] * 4
        theirs = [
            value
            for row in (line.youtube, line.davis)
            for value in ((row.psnr, row.ssim) if row else (None, None))
        ]
        writer.writerow(
            [
                one.method if one else "",
                *(number(value, 6) for value in ours),
                line.published,
                *(plain(value) for value in theirs),
                plain(line.seconds),
                number(line.seconds_per_frame, 6),
            ]
        )
    return text.getvalue()
