"""Two workers with a clip each are one worker with both: losses, weights and skipped steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.temporal import TemporalNetwork
from cssta.training import Im2ImStage, InpainterStage, Settings, TemporalStage, seed_step

CONFIG = ModelConfig(
    width=6, coarse_width=4, dilations=(2,), temporal_width=4, discriminator_width=4
)
STAGES = ("im2im", "inpainter", "temporal")
STEPS = 4
BAD = 2  # the step at which the second clip spoils the loss


def make_stage(name: str, wrap):
    torch.manual_seed(0)
    teacher, inpainter = Im2Im(CONFIG), InpaintingNetwork(CONFIG)
    settings = Settings(learning_rate=1e-3, targets=2, reference_dropout=0.5)
    how = (settings, LossWeights(), torch.device("cpu"))
    if name == "im2im":
        return Im2ImStage(CONFIG, Im2Im(CONFIG), *how, wrap=wrap)
    if name == "inpainter":
        return InpainterStage(CONFIG, inpainter, *how, teacher=teacher, wrap=wrap)
    network = TemporalNetwork(CONFIG)
    return TemporalStage(CONFIG, network, *how, inpainter=inpainter, teacher=teacher, wrap=wrap)


def train(name: str, clips: slice, wrap=lambda network: network) -> dict[str, torch.Tensor]:
    """Weights, and the steps skipped, after training on these of each step's two clips."""
    stage = make_stage(name, wrap)
    inputs = stage.network_inputs
    for step in range(STEPS):
        rng = np.random.default_rng(step)
        frames = rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
        masks = np.zeros(frames.shape[:-1], bool)
        masks[:, :, 8:20, 10:22] = True
        spoiled = torch.tensor([1.0, float("nan") if step == BAD else 1.0])[clips]
        stage.network_inputs = lambda batch, spoiled=spoiled: (
            inputs(batch)[0] * spoiled[:, None, None, None, None],
            inputs(batch)[1],
        )
        seed_step(1, step)
        stage.step({"frames": frames[clips], "masks": masks[clips]})
    skipped = torch.tensor(float(stage.optimiser.skipped))
    return {"skipped": skipped} | {k: v.clone() for k, v in stage.network.state_dict().items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in STAGES:
        weights = train(name, slice(rank, rank + 1), DistributedDataParallel)
        torch.save(weights, Path(folder) / f"{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory) -> Path:
    """What two processes came to: <stage>-<rank>.pt."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", STAGES)
def test_two_workers_equal_one_with_the_same_clips(distributed: Path, name: str):
    alone = train(name, slice(0, 2))
    first, second = (torch.load(distributed / f"{name}-{rank}.pt") for rank in range(2))
    start = make_stage(name, lambda network: network).network.state_dict()
    assert alone["skipped"] == first["skipped"] == second["skipped"] == 1
    assert any(not torch.equal(alone[key], start[key]) for key in start), "nothing was learnt"
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        # (Adam divides by the gradients' size: where that is nearly 0, rounding counts.)
        torch.testing.assert_close(first[key], value, rtol=1e-3, atol=2e-4, msg=key)
