"""Which frames a target borrows from: a few over the whole clip, and its near neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReferencePlan:
    """How many references a target sees; six by default, as in the paper (Sec. 3.2).

    Attributes:
        far: frames spread evenly over the whole clip, whatever its length.
        near: offsets from the target, in frames, each way.
    """

    far: int = 4
    near: tuple[int, ...] = (3,)

    def spread(self, length: int) -> list[int]:
        """Indices of the `far` frames, the same for every target of a clip of `length` frames."""
        if length <= self.far:
            return list(range(length))
        # Centres of equal stretches, so that no end of the clip is favoured.
        return sorted({int((i + 0.5) * length / self.far) for i in range(self.far)})

    def for_targets(self, targets: list[int], length: int) -> list[int]:
        """All references of a batch of targets (their own frames may be among them)."""
        near = {t + sign * offset for t in targets for offset in self.near for sign in (-1, 1)}
        near = {index for index in near if 0 <= index < length}
        chosen = near | set(self.spread(length))
        if len(targets) == 1:
            chosen -= set(targets)
        return sorted(chosen)


def frames_with_hole(masks: np.ndarray) -> list[int]:
    """Indices of the frames of bool (T, H, W) that have anything to complete."""
    return np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1)).tolist()
