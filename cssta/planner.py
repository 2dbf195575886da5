"""How much is done at once, from the frame's size, the holes' area and the free memory.

Little memory costs time, and rounds otherwise: smaller batches, more passes over the scores. Only
where the references themselves would not fit are there fewer of them. Limits go in steps of two, so
that a machine with memory to spare always arrives at the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cssta.attention import SCORE_BUDGET
from cssta.config import ModelConfig
from cssta.dense_attention import score_bytes
from cssta.references import ReferencePlan

LEAST_SCORES = 2**20  # bytes; below this the attention makes no progress worth the name
# Bytes per image pixel and channel of `width` that a frame takes while it is encoded or completed,
# measured, in float32.
WORKING_BYTES = 24
FEW_PIXELS = 2**16  # frames smaller than this together do not keep a CPU busy
MANY_PIXELS = 2**22  # the same for a GPU
# What cuBLAS and cuDNN say, as plain RuntimeErrors, and the CPU's allocator.
OUT_OF_MEMORY = re.compile("out of memory|ALLOC(ATION)?_FAILED|DefaultCPUAllocator", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What is done and kept at once.

    Attributes:
        batch: frames that are encoded or completed together.
        far: references kept from all over the clip.
        ahead: frames read beyond a target to find references, in one pass.
        score_bytes: for the attention's score matrices.
    """

    batch: int
    far: int
    ahead: int
    score_bytes: int

    def smaller(self, far: int) -> Limits | None:
        """The next thing to give up when memory ran out; None: there is nothing left.

        `far` references are in use: allowing fewer than memory would hold, but no fewer than
        these, would change nothing.
        """
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        if self.score_bytes > LEAST_SCORES:
            return replace(self, score_bytes=max(LEAST_SCORES, self.score_bytes // 4))
        far = min(far, self.far)
        return replace(self, far=far // 2) if far > 1 else None


def plan(
    height: int,
    width: int,
    hole_pixels: int,
    device: torch.device,
    config: ModelConfig,
    references: ReferencePlan,
    free: int | None = None,
) -> Limits:
    """Limits for frames (or crops) of this size.

    Args:
        hole_pixels: missing in the frame that misses most, as far as that is known.
        free: bytes that may be used; None: what the device has free now, less a reserve.
    """
    free = free_memory(device) * 3 // 4 if free is None else free
    pixels = height * width
    # The convolutions' layers, and the hole's patches as queries and answers, nine times unfolded.
    working = WORKING_BYTES * config.width * pixels + 144 * config.width * hole_pixels // 16
    # Encoded target and features of a reference: image and mask, features at 1/16 of the pixels.
    remembered = pixels * (4 * 4 + 2 * config.width * (4 + 2) // 16)
    enough = MANY_PIXELS if device.type == "cuda" else FEW_PIXELS
    batch = max(1, min(16, enough // max(1, pixels), free // 2 // (working + remembered)))
    batch = _power_of_two(batch)
    raw = pixels * 7  # of 16 bits, and the mask
    ahead = references.ahead
    while ahead > 1 and ahead * (raw + remembered) > free // 4:
        ahead //= 2
    far = max(1, free // 4 // (raw + remembered))
    # On a GPU scores that fit are formed once, not twice; a CPU would only lose its caches.
    count = max(1, references.far + 2 * len(references.near))
    enough = SCORE_BUDGET if device.type == "cpu" else score_bytes(height, width, count)
    scores = _power_of_two(max(LEAST_SCORES, min(_power_of_two(2 * enough - 1), free // 4)))
    return Limits(batch, far, ahead, scores)


def _power_of_two(value: int) -> int:
    """The largest that is no larger; `value` >= 1."""
    return 1 << (value.bit_length() - 1)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: on a GPU, or of RAM within the container's limit."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [_available_ram(), *_cgroup_free()]
    return min((value for value in found if value is not None), default=4 * 2**30)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in RAM."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))


def _available_ram(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 2**10
    except (OSError, ValueError):
        pass
    return None


def _cgroup_free(root: Path = Path("/sys/fs/cgroup")) -> list[int | None]:
    """What a container's limit leaves (version 2, then 1); file cache counts as free."""
    names = [("memory.max", "memory.current", "memory.stat", "inactive_file")]
    names += [
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        )
    ]
    free = []
    for limit, used, stat, cache in names:
        try:
            values = dict(line.split() for line in (root / stat).read_text().splitlines())
            left = int((root / limit).read_text()) - int((root / used).read_text())
            free.append(max(0, left + int(values.get(cache, 0))))
        except (OSError, ValueError):  # no such limit ("max"), no cgroups, another system
            continue
    return free
