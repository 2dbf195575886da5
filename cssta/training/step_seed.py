"""What a training step draws at random: a function of the run's seed and the step's number."""

from __future__ import annotations

import numpy as np
import torch


def seed_step(seed: int, step: int) -> None:
    """Make all that step number `step` will draw (torch, CPU and CUDA) depend on these two alone.

    To be called before every step. Then a run that was interrupted draws what it would have drawn,
    and every one of several workers draws what a single one would have drawn for all their clips.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
