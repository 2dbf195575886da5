"""One pass over a clip of any length: frames come in, completed frames go out, memory stays flat.

A target waits until its neighbours (and, without given references, a few more frames) have been
read. What it is completed from depends on its number alone, never on how many are done at once.

A frame is encoded once, whatever its roles; but where propagation fills holes first, a given
reference with a hole is encoded as it was given, since its own filling may lie far ahead, and once
more as filled when the stream gets there: with `ReferencePlan.far` of them, that many encodings.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cssta.bank import Bank, Remembered
from cssta.heap import trim_heap
from cssta.inpainting import Encoded, composite
from cssta.membrane import match_surroundings
from cssta.pixels import to_levels, to_tensors
from cssta.planner import Limits, is_out_of_memory, plan
from cssta.references import ReferencePlan

if TYPE_CHECKING:
    from cssta.engine import Inpainter

log = logging.getLogger(__name__)

Pair = tuple[np.ndarray, np.ndarray]
Reference = tuple[int, np.ndarray, np.ndarray]
TRIM_EVERY = 8  # targets between two returns of freed memory to the system


@dataclass(frozen=True)
class Recurrence:
    """What the temporal network remembers: its last output (1, 3, H', W') and its state."""

    number: int  # of the frame that it is of
    output: Tensor | None = None
    hidden: Tensor | None = None


class Stream:
    """The networks' part of `Inpainter.stream`: whole frames, each with the hole that is left."""

    def __init__(
        self,
        inpainter: Inpainter,
        references: Iterable[Reference] | None = None,
        start: int = 0,
    ) -> None:
        self.inpainter, self.device, self.plan = inpainter, inpainter.device, inpainter.plan
        self.one_pass = references is None
        self.given = enumerate(references or ())
        self.far: list[int] = []  # numbers of the given references that are kept,
        self.every = 1  # every so many of them
        self.start = self.next = start  # number of the next frame to be read
        self.bank = Bank(self._encode, self.device, inpainter.half)
        self.waiting: deque[tuple[Remembered, np.ndarray]] = deque()  # with the whole frame
        self.results: dict[int, np.ndarray] = {}
        self.limits: Limits | None = None  # until there is a target
        self.like: tuple[tuple[int, ...], np.dtype] | None = None  # shape and type of all frames
        self.state = Recurrence(start - 1)
        self.untrimmed = 0

    def run(self, pairs: Iterable[Pair]) -> Iterator[np.ndarray]:
        """One result for every pair, in order."""
        for frame, mask in pairs:
            self._read(frame, mask)
            yield from self._give(final=False)
        yield from self._give(final=True)

    def _read(self, frame: np.ndarray, mask: np.ndarray) -> None:
        self._check(self.next, frame, mask)
        remembered = self.bank.add(self.next, frame, mask)
        self.waiting.append((remembered, frame))
        self.next += 1

    def _check(self, number: int, frame: np.ndarray, mask: np.ndarray) -> None:
        check_frame(f"frame {number}", frame, mask, self.like)
        self.like = (frame.shape, frame.dtype)

    def _give(self, *, final: bool) -> Iterator[np.ndarray]:
        while batch := self._ready(final):
            self._complete(batch)
            yield from self._finished()
        yield from self._finished()

    def _ready(self, final: bool) -> list[int]:
        """The next targets to complete together; none while it is worth waiting for more."""
        targets = [f.number for f, _ in self.waiting if f.has_hole and f.number not in self.results]
        if not targets:
            return []
        if self.limits is None:
            self.limits = self._plan_limits()
        ahead = max([*self.plan.near, self.limits.ahead if self.one_pass else 0], default=0)
        ready = [n for n in targets if final or n + ahead < self.next][: self.limits.batch]
        full = len(ready) == self.limits.batch
        waited = len(self.waiting) > 2 * self.limits.batch + ahead
        return ready if final or full or waited else []

    def _plan_limits(self) -> Limits:
        frame, _ = next((f, w) for f, w in self.waiting if f.has_hole)
        height, width = frame.mask.shape
        holes = max(int(f.mask.sum()) for f, _ in self.waiting)
        config = self.inpainter.network.config
        limits = plan(height, width, holes, self.device, config, self.plan)
        batch = self.inpainter.batch
        return limits if batch is None else replace(limits, batch=batch)

    def _finished(self) -> Iterator[np.ndarray]:
        """Results at the head of the queue."""
        while self.waiting:
            remembered, frame = self.waiting[0]
            if remembered.has_hole and remembered.number not in self.results:
                break
            self.waiting.popleft()
            result = frame.copy()
            if remembered.has_hole:
                completed = self.results.pop(remembered.number)
                result[remembered.mask] = completed[remembered.mask]
            yield result
        self._forget()

    def _forget(self) -> None:
        """Drop from the bank what no later target needs."""
        first = self.waiting[0][0].number if self.waiting else self.next
        back = max([1, *self.plan.near])
        keep = {n for n in self.bank.frames if n >= first - back} | set(self.far)
        if self.one_pass and (step := self._one_pass().step(first - self.start)):
            keep |= {n for n in self.bank.frames if (n - self.start) % step == 0}
        self.bank.keep(keep)

    def _one_pass(self) -> ReferencePlan:
        if self.limits is None:
            return self.plan
        far, ahead = min(self.plan.far, self.limits.far), self.limits.ahead
        return replace(self.plan, far=far, ahead=ahead)

    def _complete(self, targets: list[int]) -> None:
        """Complete these, with less at a time as often as memory runs out."""
        while targets:
            part = targets[: self.limits.batch]
            try:
                self._attempt(part)
            except (RuntimeError, MemoryError) as error:
                in_use = self._one_pass().far if self.one_pass else len(self.far)
                smaller = self.limits.smaller(in_use)
                if smaller is None or not is_out_of_memory(error):
                    raise
                log.warning("out of memory: %s becomes %s", self.limits, smaller)
                self.limits, part = smaller, []
            # Out of the except clause: nothing holds on to a failed attempt's tensors any more.
            if not part and self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.untrimmed += len(part)
            if not part or self.untrimmed >= TRIM_EVERY:
                self.untrimmed = 0
                trim_heap()
            targets = targets[len(part) :]

    def _attempt(self, targets: list[int]) -> None:
        """Complete these together; a failure leaves the recurrence as it was."""
        self._take_given()
        references = [self._references(target) for target in targets]
        needed = {*targets, *(number for chosen in references for number in chosen)}
        self.bank.encode(needed, self.limits.batch)
        together = self.bank.target(targets)
        with self.inpainter.autocast():
            attended = [self._attend(*pair) for pair in zip(targets, references, strict=True)]
            output = self.inpainter.network.decode(together, torch.cat(attended)).output
        output = match_surroundings(output.float(), together.frames, together.masks)
        output = composite(output.clamp(-1, 1), together.frames, together.masks)
        state = self.state
        if self.inpainter.temporal is not None:
            steadied = []
            for rows in zip(targets, output.split(1), together.masks.split(1), strict=True):
                state = self._steady(*rows, state)
                steadied.append(state.output)
            output = torch.cat(steadied)
        frame = self.bank.frames[targets[0]]
        levels = to_levels(output, *frame.mask.shape, frame.pixels.dtype)
        self.state = state
        self.results.update(zip(targets, levels, strict=True))
        for number in targets:
            self.bank.frames[number].as_target = None

    def _encode(self, frames: Tensor, masks: Tensor) -> Encoded:
        with self.inpainter.autocast():
            return self.inpainter.network.encode(frames, masks)

    def _attend(self, target: int, references: list[int]) -> Tensor:
        """`S_att * M_t` of one target from its own references, alone: others need others."""
        own = self.bank.target([target])
        features, masks = own.features[:0], own.feature_masks[:0]
        if references:
            features, masks = self.bank.references(references)
        attended, _ = self.inpainter.network.refinement.attention(
            own.features, features, own.feature_masks, masks, None, self.limits.score_bytes
        )
        return attended

    def _steady(self, number: int, image: Tensor, mask: Tensor, state: Recurrence) -> Recurrence:
        """The temporal network's step; its output is the new state's."""
        previous, hidden = state.output, state.hidden
        if state.number != number - 1:
            # A frame without a hole is its own output: the recurrence starts anew from it.
            before = self.bank.frames[number - 1]
            previous, hidden = to_tensors(before.pixels, before.mask, self.device)[0], None
        previous = image if previous is None else previous
        with self.inpainter.autocast():
            output, hidden = self.inpainter.temporal(image, previous, mask, hidden)
        return Recurrence(number, output.float(), hidden)

    def _references(self, target: int) -> list[int]:
        """Numbers of a target's references, all of them remembered."""
        far = [number for number in self.far if number not in (target, -1 - target)]
        if self.one_pass:
            gathered = self._one_pass().gathered(target - self.start, self.next - self.start)
            far = [self.start + number for number in gathered]
        return self.plan.for_target(target, far, self.bank.frames)

    def _take_given(self) -> None:
        """Remember the given references: every other one of too many, and so on."""
        for position, (number, frame, mask) in self.given:
            if position % self.every:
                continue
            key = self._far_key(number, mask)
            if key not in self.bank.frames:
                self._check(number, frame, mask)
                self.bank.add(key, frame, mask)
            self.far.append(key)
            self._thin()
            self.bank.encode(self.far, self.limits.batch)
        self._thin()

    def _far_key(self, number: int, mask: np.ndarray) -> int:
        """Under which number a given reference is remembered.

        Its own, unless propagation fills this frame's hole when its turn comes: which of the two
        versions a target gets would then depend on where the stream began.
        """
        filled = self.inpainter.propagation is not None and mask.any()
        return -1 - number if filled else number

    def _thin(self) -> None:
        while len(self.far) > max(1, self.limits.far):
            self.far = self.far[::2]
            self.every *= 2
            self._forget()


def check_frame(
    name: str,
    frame: np.ndarray,
    mask: np.ndarray,
    like: tuple[tuple[int, ...], np.dtype] | None = None,
) -> None:
    """Raise ValueError unless this is a frame and its mask, and of the shape and type `like`."""
    if not isinstance(frame, np.ndarray) or frame.dtype not in (np.uint8, np.uint16):
        kind = getattr(frame, "dtype", type(frame))
        raise ValueError(f"{name} must be a uint8 or uint16 array, not {kind}")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"{name} must be (H, W, 3) with H, W >= 1, not {frame.shape}")
    if like is not None and (frame.shape, frame.dtype) != like:
        raise ValueError(f"{name} is {frame.dtype} {frame.shape}, those before {like[1]} {like[0]}")
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = getattr(mask, "dtype", type(mask))
        raise ValueError(f"the mask of {name} must be a bool array, not {kind}")
    if mask.shape != frame.shape[:2]:
        raise ValueError(f"the mask of {name} must be {frame.shape[:2]}, not {mask.shape}")
