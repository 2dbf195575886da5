"""Methods by name, each a function of a clip: baselines, a model's parts, a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cssta.engine import Inpainter
from cssta.evaluation import baselines
from cssta.evaluation.protocols import Protocol, scale_frames
from cssta.inpainting import composite
from cssta.pixels import to_levels, to_tensors
from cssta.video import VideoError, read_frames

Complete = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """`complete(frames, masks)`: uint8 (T, H, W, 3) and bool (T, H, W) to completed frames.

    `note`: what it is and what it was trained on, for the caption.
    """

    name: str
    complete: Complete
    note: str


BASELINES = {
    method.name: method
    for method in (
        Method("telea", baselines.telea, "OpenCV's Telea, each frame alone; untrained"),
        Method(
            "nearest",
            baselines.nearest_visible,
            "the nearest frame that sees the pixel, else Telea; untrained",
        ),
        Method(
            "aligned",
            baselines.aligned_copy,
            "the same from up to 12 frames each way, aligned by ORB and homography; untrained",
        ),
        Method(
            "flow",
            baselines.flow_guided,
            "pixels followed along OpenCV's dense flow, else Telea; untrained (DFGNet's role)",
        ),
    )
}
PARTS = {
    "cssta": "the whole model",
    "stage1": "the model's coarse stage, each frame alone (GatedConv's role)",
    "recurrent": "coarse stage and ConvGRU, no attention (VINet's role; not trained together)",
    "references-0": "the model without any reference: no inter-frame attention",
    "references-2": "the model with 2 references per frame",
    "references-6": "the model with 6 references per frame",
    "references-all": "the model with every other frame as reference",
}
NAMES = (*BASELINES, *PARTS)


def model_methods(
    parts: Sequence[str],
    folder: str | Path | None,
    label: str,
    device: str | None = None,
    *,
    lenient: bool = False,
) -> list[Method]:
    """These parts of a model folder (None: the default weights), its weights loaded once.

    `label`: how the model is called in tables; "" leaves the parts' own names. Raises
    CheckpointError, or ValueError for an unknown part, or one that the model does not have unless
    `lenient`, which leaves it out.
    """
    if not parts:
        return []
    inpainter = Inpainter.load(folder, device)
    methods = []
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"there is no method {part!r}; choose from {', '.join(NAMES)}")
        if part == "recurrent" and inpainter.temporal is None:
            if lenient:
                continue
            raise ValueError(f"{folder}: the model has no temporal network to be recurrent with")
        name = part if not label else label if part == "cssta" else f"{label}: {part}"
        methods.append(Method(name, _part(part, inpainter), PARTS[part]))
    return methods


def _part(part: str, inpainter: Inpainter) -> Complete:
    if part == "stage1":
        return lambda frames, masks: coarse_only(inpainter, frames, masks, recurrent=False)
    if part == "recurrent":
        return lambda frames, masks: coarse_only(inpainter, frames, masks, recurrent=True)
    if part == "cssta":
        return inpainter.inpaint
    count = part.removeprefix("references-")
    return lambda frames, masks: _with_references(
        inpainter, len(frames) if count == "all" else int(count), frames, masks
    )


def _with_references(
    inpainter: Inpainter, count: int, frames: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """Of `count` references, two are the near ones, as in the default of six."""
    kept = inpainter.plan
    near = kept.near if 2 <= count < len(frames) else ()
    try:
        inpainter.plan = replace(kept, far=count - 2 * len(near), near=near)
        return inpainter.inpaint(frames, masks)
    finally:
        inpainter.plan = kept


@torch.inference_mode()
def coarse_only(
    inpainter: Inpainter, frames: np.ndarray, masks: np.ndarray, *, recurrent: bool
) -> np.ndarray:
    """Stage 1 of every frame, steadied by the temporal network if `recurrent`."""
    result = frames.copy()
    previous = hidden = None
    for index, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        image, hole = to_tensors(frame, mask, inpainter.device)
        if not mask.any():
            previous, hidden = image, None
            continue
        with inpainter.autocast():
            coarse = inpainter.network.coarse(image, hole)
        merged = composite(coarse.float().clamp(-1, 1), image, hole)
        if recurrent:
            with inpainter.autocast():
                merged, hidden = inpainter.temporal(
                    merged, merged if previous is None else previous, hole, hidden
                )
            merged = merged.float()
            previous = merged
        completed = to_levels(merged[0], *mask.shape, frame.dtype)
        result[index][mask] = completed[mask]
    return result


@dataclass(frozen=True)
class ResultsFolder:
    """Completed clips that lie in a folder: NAME/*.png, NAME.mp4 or NAME.mkv for each sequence."""

    folder: Path

    def read(self, name: str, frames: int, protocol: Protocol) -> np.ndarray:
        """A sequence's result, uint8 (T, H, W, 3), scaled where it has another size.

        Raises VideoError where it is missing or too short.
        """
        for candidate in (name, f"{name}.mp4", f"{name}.mkv", f"{name}.avi"):
            path = self.folder / candidate
            if path.exists():
                found = read_frames(path)
                if len(found) < frames:
                    raise VideoError(
                        path,
                        "too-short",
                        f"has {len(found)} frames, the sequence {frames}",
                        "Complete it, or limit the evaluation with --frames",
                    )
                return scale_frames(found[:frames], protocol)
        raise VideoError(
            self.folder, "missing", f"holds no result for {name}", f"Add {name}/ or {name}.mp4"
        )
