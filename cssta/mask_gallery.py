"""A picture of the masks that training draws.

python -m cssta.mask_gallery [infra/pictures/masks.png]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cssta.masks import freeform_masks, shuffled_object_masks
from cssta.samples import render
from cssta.sheet import contact_sheet, tint

PICTURE = "infra/pictures/masks.png"
FRAMES, EVERY = 25, 8
SIZE = (160, 288)
BUCKETS = {(0.05, 0.15): False, (0.15, 0.3): True, (0.3, 0.5): True}
"""Range of the hole's share: whether it moves."""


def gallery(seed: int = 0) -> dict[str, np.ndarray]:
    """Rows for `contact_sheet`: sample clips, uint8 (T, H, W, 3), holes tinted, by what they are.

    Raises SamplesUnavailable without the photographs.
    """
    rows = {}
    for index, ((low, high), moving) in enumerate(BUCKETS.items()):
        rng = np.random.default_rng([seed, index])
        masks = freeform_masks(rng, FRAMES, *SIZE, ratio=(low, high), moving=moving)
        name = f"{'moving' if moving else 'still'}, {low:.0%} to {high:.0%}"
        rows[name] = tint(_pale(index, seed), masks)
    rng = np.random.default_rng([seed, len(rows)])
    _, objects = render(2 * len(rows), seed, FRAMES, SIZE)  # (of another clip)
    masks = shuffled_object_masks(rng, objects, FRAMES, *SIZE)
    rows["another's object"] = tint(_pale(len(rows), seed), masks)
    return rows


def _pale(index: int, seed: int) -> np.ndarray:
    """A sample clip in a few greys: the holes stand out, and the file is small."""
    grey = render(index, seed, FRAMES, SIZE)[0].mean(axis=3, keepdims=True)
    return np.repeat(120 + grey // 16 * 8, 3, axis=3).astype(np.uint8)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    path = contact_sheet(Path(arguments[0] if arguments else PICTURE), gallery(), every=EVERY)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
