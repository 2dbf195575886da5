from __future__ import annotations

import torch

from cssta.training.step_seed import seed_step


def draws(seed: int, step: int) -> tuple[float, ...]:
    seed_step(seed, step)
    return tuple(torch.rand(3).tolist())


def test_a_step_draws_the_same_whatever_came_before():
    first = draws(0, 7)
    torch.rand(100)
    assert draws(0, 7) == first


def test_steps_and_runs_draw_apart():
    # (1, 0) and (0, 1) must not meet: one seed's steps would be another's, shifted.
    assert len({draws(seed, step) for seed in range(8) for step in range(8)}) == 64
