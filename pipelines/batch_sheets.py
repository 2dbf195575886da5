"""Contact sheets of a batch: input, mask, result and, where it is known, the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from cssta.sheet import contact_sheet, mask_rows, tint
from cssta.video import open_source
from pipelines import storage
from pipelines.batch_record import VideoOutcome, VideoTask
from pipelines.batch_source import BatchSettings, is_drawn, opened
from pipelines.batch_totals import worst_of
from pipelines.watchdog import Watchdog

EVERY, COLUMNS = 10, 8  # every tenth frame of a video's start, at most so many


def choose_sheets(outcomes: Sequence[VideoOutcome], count: int) -> list[VideoOutcome]:
    """The videos that are shown: the worst by their figures, then the first by name."""
    worst = worst_of(outcomes, count)
    names = {outcome.name for outcome in worst}
    others = [o for o in outcomes if o.status != "failed" and o.name not in names]
    return worst + sorted(others, key=lambda o: o.name)[: count - len(worst)]


def draw_sheet(task: VideoTask, output: str, settings: BatchSettings) -> bytes:
    """A PNG of a published video. Raises VideoError or StorageError."""
    endpoint = settings.s3_endpoint
    with (
        Watchdog(settings.stall_seconds) as watchdog,
        tempfile.TemporaryDirectory(prefix="sheet-", dir=settings.claim_scratch()) as folder,
        opened(task, settings, watchdog.feed) as video,
        _copied(output, folder, endpoint) as local,
    ):
        count = video.source.info.frames
        every = EVERY if count > EVERY else 1
        shown = list(range(0, count, every))[:COLUMNS]
        frames, result = (
            np.stack([_eight_bits(frame.rgb()) for _, frame in sorted(source.pick(shown).items())])
            for source in (video.source, open_source(local, progress=watchdog.feed))
        )
        picked = video.masks.pick(shown)
        masks = np.stack([picked[index] for index in shown])
        rows = {"input": tint(frames, masks), "mask": mask_rows(masks), "result": result}
        if is_drawn(task):
            rows["truth"] = frames
        # The sheet numbers frames by their place: each kept one stands for those up to the next.
        places = range(len(shown) * every)
        rows = {label: [row[i // every] for i in places] for label, row in rows.items()}
        path = contact_sheet(Path(folder) / "sheet.png", rows, every=every, max_columns=COLUMNS)
        return path.read_bytes()


@contextmanager
def _copied(uri: str, folder: str, endpoint: str | None) -> Iterator[Path]:
    """A local copy, for which no watchdog needs to be fed."""
    with ExitStack() as stack:
        with Watchdog.paused():
            local = stack.enter_context(storage.local_copy(uri, folder, endpoint))
        yield local


def _eight_bits(picture: np.ndarray) -> np.ndarray:
    return picture if picture.dtype == np.uint8 else (picture >> 8).astype(np.uint8)
