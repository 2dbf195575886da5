"""Protocols: everything that decides an evaluation's numbers, pinned under a name.

Two people who score the same frames by the same protocol get the same holes; `mask_digest` proves
it. Shapes: T, H, W frames, height, width of a clip.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from cssta.masks import dilate, freeform_masks

MaskKind = Literal["freeform", "objects", "folder"]


@dataclass(frozen=True)
class Protocol:
    """How frames are scaled, where holes are and how results are scored.

    Attributes:
        filter: how frames are scaled, aspect ignored: "area" (means over areas) or "bicubic"
            (antialiased, as Pillow's, which the field's scripts use). Masks: nearest.
        holes: what is drawn where no mask folder is given.
        ratio: share of a free-form hole in the clip.
        moving: whether free-form holes drift; None: of about half of the clips.
        grow: steps by which every mask is dilated with a 3x3 cross.
        square: side of the square that another sequence's object mask is dilated with, as stored.
        window: SSIM's window in pixels.
        seed: of the free-form holes, together with the sequence's name.
    """

    name: str
    height: int
    width: int
    filter: Literal["area", "bicubic"]
    holes: MaskKind
    ratio: float
    moving: bool | None
    grow: int
    square: int
    window: int
    seed: int = 0

    def describe(self) -> str:
        """One sentence for a caption."""
        move = {True: "drifting", False: "still", None: "still or drifting"}[self.moving]
        holes = {
            "freeform": f"{move} free-form holes of {self.ratio:.0%}, seed {self.seed}",
            "objects": "the next sequence's object masks",
            "folder": "given masks",
        }[self.holes]
        if self.holes == "objects" and self.square > 1:
            holes += f" dilated by {self.square}x{self.square}"
        if self.grow:
            holes += f", dilated {self.grow} times by a 3x3 cross"
        return (
            f"protocol {self.name}: {self.width}x{self.height} ({self.filter}), {holes}; "
            f"composited; SSIM window {self.window}; frames with a hole"
        )


# The paper's size (Sec. 3.1). It gives neither the holes' size nor SSIM's window: 16 % as in our
# own earlier figures, and the window that Wang et al. 2004's uniform variant uses.
PAPER = Protocol("paper", 256, 256, "area", "freeform", 0.16, True, 0, 5, 7)
# What E2FGVI and its successors quote. Their mask files are not to be had from seeds: without a
# folder of masks, still free-form ones take their place.
E2FGVI = Protocol("e2fgvi", 240, 432, "bicubic", "freeform", 0.16, False, 4, 1, 65)
PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, E2FGVI)}


def protocol(name: str, holes: MaskKind | None = None, seed: int = 0) -> Protocol:
    """The named protocol, with other holes or another seed where given. Raises ValueError."""
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    found = PROTOCOLS[name]
    return replace(found, holes=holes or found.holes, seed=seed)


def scale_frames(frames: np.ndarray, protocol: Protocol) -> np.ndarray:
    """uint8 (T, h, w, 3) scaled to the protocol's size: uint8 (T, H, W, 3)."""
    size = (protocol.height, protocol.width)
    if frames.shape[1:3] == size:
        return frames
    if protocol.filter == "area":
        return np.stack(
            [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
        )
    scaled = [
        F.interpolate(
            torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float(),
            size, mode="bicubic", antialias=True, align_corners=False,
        )[0].permute(1, 2, 0)
        for frame in frames
    ]  # fmt: skip
    return torch.stack(scaled).round().clamp(0, 255).to(torch.uint8).numpy()


def freeform_holes(protocol: Protocol, name: str, frames: int) -> np.ndarray:
    """Free-form holes of the sequence of that name: bool (T, H, W), decided by seed and name."""
    digest = hashlib.sha256(f"{protocol.seed}/{name}".encode()).digest()
    return dilate(
        freeform_masks(
            np.random.default_rng(int.from_bytes(digest[:4], "big")),
            frames,
            protocol.height,
            protocol.width,
            ratio=(protocol.ratio, protocol.ratio),
            moving=protocol.moving,
        ),
        protocol.grow,
    )


def laid_over(protocol: Protocol, masks: np.ndarray, frames: int) -> np.ndarray:
    """Masks bool (S, h, w) made holes of a clip: bool (T, H, W).

    They start with their first frame and run back and forth where they end too early. Objects are
    dilated by the square as they are stored, then all are scaled (nearest) and grown.
    """
    period = max(1, 2 * (len(masks) - 1))
    order = np.arange(frames) % period
    order = np.where(order < len(masks), order, period - order)
    size = (protocol.width, protocol.height)
    square = np.ones((protocol.square, protocol.square), np.uint8)
    holes = np.empty((frames, protocol.height, protocol.width), bool)
    for row, index in enumerate(order):
        mask = masks[index].view(np.uint8)
        mask = cv2.dilate(mask, square) if protocol.holes == "objects" else mask
        holes[row] = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    return dilate(holes, protocol.grow)


def mask_digest(masks: np.ndarray) -> str:
    """Twelve hex digits over bool (T, H, W): two people's masks are the same if these are."""
    whole = hashlib.sha256(str(masks.shape).encode())
    whole.update(np.packbits(masks).tobytes())
    return whole.hexdigest()[:12]
