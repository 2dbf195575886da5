"""Which frames a target borrows from: a few over the whole clip, and its near neighbours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class ReferencePlan:
    """How many references a target sees; six by default, as in the paper (Sec. 3.2).

    Attributes:
        far: frames spread evenly over the whole clip, whatever its length.
        near: offsets from the target, in frames, each way.
        ahead: frames that are read beyond a target where the far ones are gathered in one pass.
    """

    far: int = 4
    near: tuple[int, ...] = (3,)
    ahead: int = 16

    def spread(self, length: int) -> list[int]:
        """Indices of the `far` frames, the same for every target of a clip of `length` frames."""
        if length <= self.far:
            return list(range(length))
        # Centres of equal stretches, so that no end of the clip is favoured.
        return sorted({int((i + 0.5) * length / self.far) for i in range(self.far)})

    def gathered(self, target: int, length: int) -> list[int]:
        """The far frames in one pass, when no more than `length` frames have been read.

        Every k-th frame of what has passed, k doubling as they become too many, and a few of the
        `ahead` frames to come. Depends on the target alone (and on where the clip ends).
        """
        coming = (self.far + 2) // 4
        step = self.step(target)
        chosen = set(range(0, target + 1, step)) if step else set()
        if coming and self.ahead:
            gap = -(-self.ahead // coming)
            stop = min(length, target + self.ahead + 1)
            chosen.update(range(target - target % gap + gap, stop, gap))
        return sorted(chosen - {target})

    def step(self, target: int) -> int:
        """k of `gathered`: a frame that it does not divide is never far again; 0: none is."""
        passed = self.far - (self.far + 2) // 4
        step = 1
        while passed and target // step >= passed:
            step *= 2
        return step if passed else 0

    def for_target(self, target: int, far: Collection[int], known: Collection[int]) -> list[int]:
        """All references of a target, of the `known` frames: `far` ones and its neighbours."""
        near = {target + sign * offset for offset in self.near for sign in (-1, 1)}
        return sorted(n for n in {*near, *far} - {target} if n in known)
