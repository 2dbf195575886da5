"""Pictures of an evaluation: panels of every 10th frame, a side-by-side video, an attention map."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from cssta.backbone import feature_mask
from cssta.engine import Inpainter
from cssta.evaluation.run import Completed
from cssta.evaluation.scoring import hide
from cssta.pixels import to_tensors
from cssta.sheet import contact_sheet, tint
from cssta.video import write_video

# Attentions between frames, of which there is something to be seen.
INTER_FRAME = ("full", "inter-frame")
SCALE = 4  # image pixels per feature
BAR = 22  # pixels of a label above a tile
MARK = (255, 40, 90)


@dataclass(frozen=True)
class Look:
    """A hole pixel to ask the attention about: of a sequence's frame, in the protocol's pixels."""

    sequence: str
    frame: int
    y: int
    x: int

    @classmethod
    def parse(cls, text: str) -> Look:
        """From `SEQUENCE:FRAME,Y,X`. Raises ValueError."""
        found = re.fullmatch(r"(.+):(\d+),(\d+),(\d+)", text)
        if not found:
            raise ValueError(f"{text!r} is no SEQUENCE:FRAME,Y,X, such as dog:20,120,96")
        return cls(found[1], *map(int, found.groups()[1:]))

    def check(self, masks: np.ndarray) -> None:
        """Raise ValueError unless it lies in a hole of masks, bool (T, H, W)."""
        frames, height, width = masks.shape
        inside = self.frame < frames and self.y < height and self.x < width
        if not inside or not masks[self.frame, self.y, self.x]:
            of = f"{self.sequence} ({frames} frames of {width}x{height})"
            there = np.argwhere(masks)
            hint = "there is none"
            if len(there):
                hint = "one is {},{},{}".format(*there[len(there) // 2])
            raise ValueError(f"{self.frame},{self.y},{self.x} is no hole pixel of {of}; {hint}")


def draw_all(
    folder: Path,
    completed: Completed,
    inpainter: Inpainter | None = None,
    look: Look | None = None,
) -> dict[str, Path]:
    """All pictures of a sequence, by caption; with the model, also where its attention looks.

    `look`: from which hole pixel, where it is one of this sequence.
    """
    name = completed.name
    found = {
        f"{name}: every 10th frame": panels(folder / f"{name}.png", completed),
        f"{name}: side by side": side_by_side(folder / f"{name}.mp4", completed),
    }
    if inpainter is None or not completed.masks.any():
        return found
    if inpainter.network.refinement.attention.parts in INTER_FRAME:
        path = folder / f"{name}-attention.png"
        if look is not None and look.sequence == name:
            attention_map(path, inpainter, completed, look.frame, (look.y, look.x))
            which = f"hole pixel y={look.y} x={look.x} of frame {look.frame}"
        else:
            attention_map(path, inpainter, completed)
            which = "one hole pixel"
        found[f"{name}: where {which} looks, by the networks alone; shares of attention"] = path
    return found


def panels(path: Path, completed: Completed, every: int = 10) -> Path:
    """Every 10th frame: input with the hole tinted, mask, each method, truth (Fig. 5-9)."""
    return contact_sheet(path, _rows(completed), every)


def side_by_side(path: Path, completed: Completed, fps: float = 24, columns: int = 4) -> Path:
    """An mp4 of the same, labelled tiles in rows of `columns`."""
    tiles = [_labelled(label, frames) for label, frames in _rows(completed).items()]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % min(columns, len(tiles)))
    across = min(columns, len(tiles))
    rows = [np.concatenate(tiles[i : i + across], axis=2) for i in range(0, len(tiles), across)]
    return write_video(path, np.concatenate(rows, axis=1), fps)


def _rows(completed: Completed) -> dict[str, np.ndarray]:
    mask = np.repeat(completed.masks[..., None], 3, axis=3).view(np.uint8) * np.uint8(255)
    return {
        "input": tint(completed.frames, completed.masks),
        "mask": mask,
        **completed.results,
        "truth": completed.frames,
    }


def _labelled(label: str, frames: np.ndarray) -> np.ndarray:
    bar = np.zeros((BAR, frames.shape[2], 3), np.uint8)
    cv2.putText(
        bar, label, (6, BAR - 7), cv2.FONT_HERSHEY_DUPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA
    )
    return np.concatenate([np.repeat(bar[None], len(frames), 0), frames], axis=1)


def hole_pixel(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (y, x) deepest inside a hole, bool (H, W). Raises ValueError without a hole."""
    if not mask.any():
        raise ValueError("the frame has no hole to ask the attention about")
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(y), int(x)


@torch.inference_mode()
def attention_weights(
    inpainter: Inpainter,
    frames: np.ndarray,
    masks: np.ndarray,
    target: int,
    pixel: tuple[int, int],
    references: list[int],
) -> np.ndarray:
    """Where the query at a hole pixel looks (eq. 1): float32 (R, h, w), h and w a quarter.

    The softmax of the learned temperature times the cosines between the 3x3 feature patch at
    `pixel` (y, x) of frame `target` and every patch of the `references` that touches no hole; it
    sums to 1. Computed plainly for this one query. All zero where no key is visible.
    """
    network = inpainter.network
    hidden = hide(frames, masks)

    def features(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, hole = to_tensors(hidden[index], masks[index], inpainter.device)
        return network.encode(image, hole).features.float(), feature_mask(hole)

    def patches(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.unfold(maps, 3, padding=1)[0]  # (C * 9, h * w)

    with inpainter.autocast():
        own, _ = features(target)
        height, width = own.shape[2:]
        y, x = min(pixel[0] // SCALE, height - 1), min(pixel[1] // SCALE, width - 1)
        query = patches(own)[:, y * width + x]
        logits = []
        for index in references:
            maps, holes = features(index)
            keys = patches(maps)
            norms = keys.norm(dim=0).clamp_min(1e-6) * query.norm().clamp_min(1e-6)
            cosine = (query @ keys) / norms
            logits.append(cosine.masked_fill(patches(holes.float()).amax(0) > 0, -torch.inf))
    scores = torch.stack(logits) * network.refinement.attention.log_scale.float().exp()
    if not torch.isfinite(scores).any():
        return np.zeros((len(references), height, width), np.float32)
    weights = torch.softmax(scores.flatten(), 0).reshape(len(references), height, width)
    return weights.cpu().numpy().astype(np.float32)


def attention_map(
    path: Path, inpainter: Inpainter, completed: Completed, target: int | None = None,
    pixel: tuple[int, int] | None = None,
) -> Path:  # fmt: skip
    """A PNG row: the target with the pixel marked, then each reference with its weights.

    `target`, `pixel`: by default the middle frame with a hole and its deepest pixel. Raises
    ValueError where there is no hole.
    """
    holes = np.flatnonzero(completed.masks.any(axis=(1, 2)))
    if target is None:
        if not len(holes):
            raise ValueError(f"{completed.name} has no hole to ask the attention about")
        target = int(holes[len(holes) // 2])
    pixel = hole_pixel(completed.masks[target]) if pixel is None else pixel
    plan = inpainter.plan
    length = len(completed.frames)
    references = plan.for_target(target, plan.spread(length), range(length))
    weights = attention_weights(
        inpainter, completed.frames, completed.masks, target, pixel, references
    )
    marked = tint(completed.frames[target][None], completed.masks[target][None])[0]
    cv2.circle(marked, pixel[::-1], 6, (255, 255, 255), 3, cv2.LINE_AA)
    cv2.circle(marked, pixel[::-1], 6, MARK, 1, cv2.LINE_AA)
    rows = {f"frame {target}": marked}
    peak = max(float(weights.max()), 1e-12)
    for index, weight in zip(references, weights, strict=True):
        rows[f"{index}: {weight.sum():.0%}"] = _heated(completed.frames[index], weight / peak)
    tiles = [_labelled(label, picture[None])[0] for label, picture in rows.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(tiles, axis=1)[..., ::-1])
    return path


def _heated(frame: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A dimmed frame (H, W, 3) with weights (h, w) in 0..1 glowing over it, roots for the eye."""
    height, width = frame.shape[:2]
    size = (weight.shape[1] * SCALE, weight.shape[0] * SCALE)
    large = cv2.resize(np.sqrt(weight), size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    heat = cv2.applyColorMap(np.rint(255 * large).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = large[..., None]
    return np.rint(0.45 * frame * (1 - share) + heat[..., ::-1] * share).astype(np.uint8)
