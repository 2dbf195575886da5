"""Methods by name, each a function of a clip: baselines, a model's parts, a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cssta.checkpoint import CheckpointError
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

    `note`: what it is, for the caption. `part`: of a model, or "".
    """

    name: str
    complete: Complete
    note: str
    part: str = ""


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
    "cssta": "the whole method: pixels brought along by flow, the model's networks, texture",
    "untextured": "the whole method without texture: smooth where no frame sees",
    "network": "the model's networks alone, as in the paper",
    "stage1": "the model's coarse stage, each frame alone (GatedConv's role)",
    "recurrent": "coarse stage and ConvGRU, no attention (VINet's role; not trained together)",
    "references-0": "the networks without any reference: no inter-frame attention",
    "references-2": "the networks with 2 references per frame",
    "references-6": "the networks with 6 references per frame",
    "references-all": "the networks with every other frame as reference",
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
    """`methods_of` a model folder (None: the default weights), in the order of `parts`.

    Raises CheckpointError, or ValueError for an unknown part, or for one that the model does not
    have unless `lenient`, which leaves it out.
    """
    methods: list[Method] = []
    plain = [part for part in parts if part != "recurrent"]
    if plain:
        methods += methods_of(Inpainter.load(folder, device), plain, label)
    if "recurrent" in parts:  # (by default the temporal network may rest)
        try:
            steadied = Inpainter.load(folder, device, temporal=True)
        except ValueError as error:
            if isinstance(error, CheckpointError) or not lenient:
                raise
        else:
            methods += methods_of(steadied, ["recurrent"], label)
    order = {part: number for number, part in enumerate(parts)}
    return sorted(methods, key=lambda method: order[method.part])


def methods_of(inpainter: Inpainter, parts: Sequence[str], label: str = "") -> list[Method]:
    """These parts of a model.

    `label`: how the model is called in tables; "" leaves the parts' own names. Raises ValueError
    for an unknown part, or one that the model does not have.
    """
    methods = []
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"there is no method {part!r}; choose from {', '.join(NAMES)}")
        if part == "recurrent" and inpainter.temporal is None:
            raise ValueError("the model has no temporal network, or does not use it")
        name = part if not label else label if part == "cssta" else f"{label}: {part}"
        methods.append(Method(name, _part(part, inpainter), PARTS[part], part))
    return methods


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a name that is no method's."""
    for name in names:
        if name not in NAMES:
            raise ValueError(f"there is no method {name!r}; choose from {', '.join(NAMES)}")


def _part(part: str, inpainter: Inpainter) -> Complete:
    if part == "stage1":
        return lambda frames, masks: coarse_only(inpainter, frames, masks, recurrent=False)
    if part == "recurrent":
        return lambda frames, masks: coarse_only(inpainter, frames, masks, recurrent=True)
    if part == "cssta":
        return inpainter.inpaint
    if part == "untextured":
        return lambda frames, masks: _without(inpainter, frames, masks, texture=None)
    count = part.removeprefix("references-")
    return lambda frames, masks: networks_alone(
        inpainter,
        frames,
        masks,
        None if part == "network" else len(frames) if count == "all" else int(count),
    )


def networks_alone(
    inpainter: Inpainter, frames: np.ndarray, masks: np.ndarray, references: int | None = None
) -> np.ndarray:
    """Nothing brought along by flow; of so many `references`, two near ones, as by default."""
    plan = inpainter.plan
    if references is not None:
        near = plan.near if 2 <= references < len(frames) else ()
        plan = replace(plan, far=references - 2 * len(near), near=near)
    return _without(inpainter, frames, masks, propagation=None, texture=None, plan=plan)


def _without(
    inpainter: Inpainter, frames: np.ndarray, masks: np.ndarray, **settings: object
) -> np.ndarray:
    """`inpaint` with other settings for once."""
    kept = {name: getattr(inpainter, name) for name in settings}
    try:
        vars(inpainter).update(settings)
        return inpainter.inpaint(frames, masks)
    finally:
        vars(inpainter).update(kept)


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
