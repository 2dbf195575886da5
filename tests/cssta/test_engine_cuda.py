"""What only a GPU can show of the engine: real memory that runs out, its precision, its threads."""

from __future__ import annotations

import logging
from copy import deepcopy

import numpy as np
import pytest
import torch

from cssta import Inpainter, stream
from cssta.benchmark import clip
from cssta.checkpoint import Model
from cssta.pixels import to_levels, to_tensors
from cssta.planner import free_memory, plan
from tests.cssta.test_engine import inpainter
from tests.cssta.test_stream import warnings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
MIB = 2**20


def networks_alone(device: str = "cuda") -> Inpainter:
    return Inpainter.load(device=device, propagation=None, texture=None)


@pytest.fixture
def little_memory():
    """Leaves the process this many bytes beyond what it has now; everything again at the end."""

    def limit(free: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, (torch.cuda.memory_reserved() + free) / total)
        )

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_when_memory_really_runs_out_it_shrinks_and_goes_on(little_memory, monkeypatch, caplog):
    frames, masks = clip(12, 480, 864, 0.15)
    made = networks_alone()
    expected = made.inpaint(frames, masks).astype(int)
    # Planned for a GPU with room, which is then not there.
    planned = plan(480, 864, 480 * 864 // 6, made.device, made.network.config, made.plan)
    assert planned.batch > 1
    monkeypatch.setattr(stream, "plan", lambda *_: planned)
    little_memory(1200 * MIB)
    with caplog.at_level(logging.WARNING, "cssta"):
        result = made.inpaint(frames, masks)
    assert np.array_equal(result[~masks], frames[~masks])
    assert np.abs(result - expected)[masks].mean() < 1
    assert warnings(caplog), "there was memory enough: the test shows nothing"


def test_an_allocation_that_fails_is_known_and_memory_comes_back():
    before = free_memory(torch.device("cuda"))
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert abs(free_memory(torch.device("cuda")) - before) < 64 * MIB


@pytest.mark.parametrize("load", [networks_alone, Inpainter.load], ids=["networks", "default"])
def test_in_mixed_precision_it_is_near_a_cpus_result_in_full(load):
    frames, masks = clip(8, 120, 216, 0.15)
    on_cpu, on_gpu = (load(device=device) for device in ("cpu", "cuda"))
    on_cpu.mixed_precision = on_cpu.network.refinement.attention.unfold = False
    assert on_gpu.mixed_precision and on_gpu.half == torch.bfloat16
    expected, result = (made.inpaint(frames, masks) for made in (on_cpu, on_gpu))
    assert np.array_equal(result[~masks], frames[~masks])
    assert np.abs(result.astype(int) - expected)[masks].mean() < 3


def test_in_full_precision_it_is_a_cpus_result_nearly_to_the_level():
    frames, masks = clip(5, 24, 40, 0.3)
    on_cpu = inpainter()
    model = Model(on_cpu.network.config, deepcopy(on_cpu.network))
    on_gpu = Inpainter(model, torch.device("cuda"))
    on_gpu.mixed_precision = False
    difference = on_gpu.inpaint(frames, masks).astype(int) - on_cpu.inpaint(frames, masks)
    assert np.abs(difference).max() <= 2  # TF32 in convolutions


def test_channels_last_changes_nothing():
    frames, masks = clip(6, 120, 216, 0.15)
    made = networks_alone()
    weight = made.network.refinement.decoder.at_half.feature.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    expected = made.inpaint(frames, masks).astype(int)
    made.network.to(memory_format=torch.contiguous_format)
    assert np.abs(made.inpaint(frames, masks) - expected)[masks].mean() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_go_there_and_back(dtype):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, np.iinfo(dtype).max + 1, (20, 50, 70, 3), dtype)
    masks = rng.random((20, 50, 70)) < 0.5
    # All on their way before the first is looked at.
    sent = [to_tensors(*pair, torch.device("cuda")) for pair in zip(frames, masks, strict=True)]
    images = torch.cat([image for image, _ in sent])
    assert np.array_equal(to_levels(images, 50, 70, np.dtype(dtype)), frames)
    assert all(
        np.array_equal(hole[0, 0, :50, :70].cpu().numpy() > 0.5, mask)
        for (_, hole), mask in zip(sent, masks, strict=True)
    )


def test_propagation_runs_ahead_and_changes_nothing():
    frames, masks = clip(12, 120, 216, 0.15)
    made = Inpainter.load(device="cuda", texture=None)
    assert made.read_ahead > 0
    expected = made.inpaint(frames, masks)
    made.read_ahead = 0
    assert np.array_equal(made.inpaint(frames, masks), expected)
