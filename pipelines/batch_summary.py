"""What a batch came to, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipelines.batch_record import FINISHED, STATUSES, ModelIdentity, VideoOutcome


@dataclass(frozen=True)
class BatchSummary:
    """What became of every video, in order of name; URIs of what tells more."""

    outcomes: tuple[VideoOutcome, ...]
    output: str
    summary_file: str
    model: ModelIdentity
    seconds: float
    report: str = ""
    ledger: str = ""
    run_id: str | None = None

    def count(self, status: str) -> int:
        """Videos with this status: done, review, skipped or failed.

        One that an earlier run held for review, and that was not made again, counts as both.
        """
        return sum(status in (o.status, o.standing) for o in self.outcomes)

    @property
    def failures(self) -> list[VideoOutcome]:
        """The failed ones."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def sheets(self) -> list[str]:
        """URIs of the contact sheets."""
        return [outcome.sheet for outcome in self.outcomes if outcome.sheet]

    def text(self) -> str:
        """The summary for a person: counts, what was not plain, where things are."""
        frames = sum(o.frames for o in self.outcomes if o.status in FINISHED)
        held = self.count("review")
        lines = [
            f"{len(self.outcomes)} videos: {self.count('done')} done ({frames} frames), "
            + (f"{held} held for review, " if held else "")
            + f"{self.count('skipped')} skipped (already there), {self.count('failed')} failed, "
            f"in {self.seconds:.1f} s"
        ]
        for reason, number in sorted(Counter(o.reason for o in self.failures).items()):
            lines.append(f"failed, {reason}: {number}")
            lines += [f"  {o.name}: {o.message}" for o in self.failures if o.reason == reason]
        lines += [f"review: {o.name}: {o.review}" for o in self.outcomes if o.standing == "review"]
        lines += [
            f"note, {o.reason}: {o.name}: {o.message}"
            for o in self.outcomes
            if o.status in FINISHED and o.reason
        ]
        lines.append(f"model: {self.model.describe()}")
        lines.append(f"completed videos: {self.output}")
        lines += [f"contact sheet: {sheet}" for sheet in self.sheets]
        for label, uri in (("report", self.report), ("ledger", self.ledger)):
            lines += [f"{label}: {uri}"] if uri else []
        lines.append(f"summary: {self.summary_file}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": vars(self.model),
            "output": self.output,
            "seconds": self.seconds,
            "counts": {status: self.count(status) for status in STATUSES},
            "failures_by_reason": dict(Counter(o.reason for o in self.failures)),
            "videos": [outcome.to_dict() for outcome in self.outcomes],
        }
