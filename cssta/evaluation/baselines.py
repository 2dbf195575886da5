"""What needs no trained network, to be beaten: one function per baseline.

Each takes frames uint8 (T, H, W, 3) RGB and masks bool (T, H, W), True = hole, never looks at what
a frame holds in its hole, and returns frames that differ there only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cssta.propagation import Propagation

TELEA_RADIUS = 3
REACH = 12  # frames each way that are aligned to a target
FEATURES = 500
FEWEST_MATCHES = 12
RANSAC_PIXELS = 3.0


def telea(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """OpenCV's fast-marching inpainting of every frame alone."""
    return np.stack([telea_frame(*pair) for pair in zip(frames, masks, strict=True)])


def telea_frame(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One frame (H, W, 3) by mask (H, W)."""
    filled = cv2.inpaint(frame, mask.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)
    return np.where(mask[..., None], filled, frame)


def nearest_visible(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Each hole pixel from the frame nearest in time that sees this place; the earlier of two.

    Places that no frame sees: Telea.
    """
    result, unseen = frames.copy(), masks.copy()
    for distance in range(1, len(frames)):
        if not unseen.any():
            break
        for target, source in _pairs(len(frames), distance):
            take = unseen[target] & ~masks[source]
            result[target][take] = frames[source][take]
            unseen[target] &= ~take
    return _rest(result, unseen)


def aligned_copy(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Like `nearest_visible`, from up to 12 frames each way, aligned by ORB and a homography.

    What no alignable frame sees: Telea.
    """
    height, width = masks.shape[1:]
    views = [_View.of(*pair) for pair in zip(frames, masks, strict=True)]
    result, unseen = frames.copy(), masks.copy()
    for distance in range(1, min(REACH, len(frames) - 1) + 1):
        for target, source in _pairs(len(frames), distance):
            if not unseen[target].any():
                continue
            move = _homography(views[source], views[target])
            if move is None:
                continue
            picture = cv2.warpPerspective(frames[source], move, (width, height))
            # (Interpolation must not mix hole or border into what is taken.)
            seen = (~masks[source]).astype(np.uint8) * 255
            take = unseen[target] & (cv2.warpPerspective(seen, move, (width, height)) == 255)
            result[target][take] = picture[take]
            unseen[target] &= ~take
    return _rest(result, unseen)


def flow_guided(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Pixels followed along dense optical flow until they come out of the hole; else Telea.

    The role of flow-guided networks such as DFGNet, with classical flow from OpenCV.
    """
    found = list(Propagation().run(zip(frames, masks, strict=True)))
    return _rest(np.stack([frame for frame, _ in found]), np.stack([mask for _, mask in found]))


def _pairs(length: int, distance: int):
    """(target, source) frames that lie `distance` apart, earlier sources first."""
    for sign in (-1, 1):
        for target in range(length):
            if 0 <= target + sign * distance < length:
                yield target, target + sign * distance


def _rest(result: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    for index in np.flatnonzero(unseen.any(axis=(1, 2))):
        result[index] = telea_frame(result[index], unseen[index])
    return result


@dataclass(frozen=True)
class _View:
    """ORB keypoints' places (N, 2) and descriptors (N, 32) of what is visible in a frame."""

    places: np.ndarray
    descriptors: np.ndarray | None

    @classmethod
    def of(cls, frame: np.ndarray, mask: np.ndarray) -> _View:
        # (Descriptors reach beyond their keypoint: what is in the hole must be alike in any case.)
        grey = np.where(mask, np.uint8(127), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        visible = cv2.erode((~mask).astype(np.uint8), np.ones((7, 7), np.uint8))
        points, descriptors = cv2.ORB_create(FEATURES).detectAndCompute(grey, visible)
        return cls(np.float32([point.pt for point in points]).reshape(-1, 2), descriptors)


def _homography(source: _View, target: _View) -> np.ndarray | None:
    """3x3, from source to target places; None where too little agrees."""
    if source.descriptors is None or target.descriptors is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(
        source.descriptors, target.descriptors
    )
    if len(matches) < FEWEST_MATCHES:
        return None
    here = source.places[[match.queryIdx for match in matches]]
    there = target.places[[match.trainIdx for match in matches]]
    cv2.setRNGSeed(0)
    move, agree = cv2.findHomography(here, there, cv2.RANSAC, RANSAC_PIXELS)
    return None if move is None or agree.sum() < FEWEST_MATCHES else move
