from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cssta.config import ModelConfig
from cssta.dense_attention import score_bytes
from cssta.planner import Limits, _cgroup_free, free_memory, is_out_of_memory, plan
from cssta.references import ReferencePlan

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30
CONFIG = ModelConfig.preset("small")


def limits(height, width, free, device=CUDA, hole=0.15) -> Limits:
    holes = int(height * width * hole)
    return plan(height, width, holes, device, CONFIG, ReferencePlan(), free)


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    free=st.integers(0, 2**40),
    device=st.sampled_from([CPU, CUDA]),
    hole=st.floats(0, 1),
)
def test_there_is_always_a_plan_and_more_memory_never_gives_less(height, width, free, device, hole):
    less, more = (limits(height, width, f, device, hole) for f in (free, 2 * free))
    for key, value in vars(less).items():
        assert 1 <= value <= getattr(more, key), key
    assert less.batch & (less.batch - 1) == 0 and more.ahead <= ReferencePlan().ahead


def test_sizes_that_people_have():
    assert limits(240, 432, 60 * GIB).batch >= 8
    assert limits(2160, 3840, 60 * GIB).batch == 1
    assert limits(240, 432, GIB // 2).batch < 8
    assert limits(240, 432, 8 * GIB, CPU).batch == 1
    assert limits(64, 64, 8 * GIB, CPU).batch == 16
    assert limits(720, 1280, 8 * GIB).far >= 30
    assert limits(2160, 3840, GIB).far < limits(2160, 3840, 8 * GIB).far


def test_shrinking_ends_and_gives_up_least_first():
    seen = [Limits(batch=5, far=6, ahead=16, score_bytes=2**26)]
    while (smaller := seen[-1].smaller(far=6)) is not None:
        seen.append(smaller)
    assert [s.batch for s in seen[:3]] == [5, 2, 1]
    assert all(s.score_bytes == 2**26 for s in seen[:3]) and seen[2].far == 6
    assert seen[-1] == Limits(1, 1, 16, 2**20) and len(seen) < 12


def test_of_many_references_that_would_fit_those_in_use_are_given_up_first():
    planned = limits(240, 432, 100 * GIB)
    assert planned.far > 1000
    last = Limits(batch=1, far=planned.far, ahead=16, score_bytes=2**20)
    assert last.smaller(far=4).far == 2
    assert last.smaller(far=1) is None and last.smaller(far=0) is None
    assert Limits(1, 2, 16, 2**20).smaller(far=4).far == 1, "some were left out before"


def test_a_gpu_with_memory_to_spare_forms_scores_once():
    small, large = limits(240, 432, 100 * GIB), limits(720, 1280, 100 * GIB)
    # (a frame's scores, and as much again to work on)
    assert small.score_bytes >= score_bytes(240, 432, references=6)
    assert limits(240, 432, 10_000 * GIB).score_bytes == small.score_bytes
    assert large.score_bytes == 16 * GIB and large.batch > 1
    assert limits(720, 1280, 100 * GIB, CPU).score_bytes == 2**27, "or it leaves the caches"
    assert limits(16, 16, 100 * GIB).score_bytes == 2**20, "nothing to give up in vain"


@pytest.mark.parametrize(
    "error, expected",
    [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_of_memory_is(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(2**60), lambda: np.empty(2**58)], ids=["torch", "numpy"]
)
def test_real_failures_of_the_allocators(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)


def test_free_memory_is_what_the_system_says():
    assert 2**20 < free_memory(CPU) < 2**50


def test_a_containers_limit_counts(tmp_path):
    assert _cgroup_free(tmp_path) == []
    two = {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50"}
    for name, text in two.items():
        (tmp_path / name).write_text(text + "\n")
    assert _cgroup_free(tmp_path) == [350]
    (tmp_path / "memory.max").write_text("max\n")
    assert _cgroup_free(tmp_path) == []
    one = {"limit_in_bytes": "90", "usage_in_bytes": "100"}
    (tmp_path / "memory").mkdir()
    for name, text in one.items():
        (tmp_path / "memory" / f"memory.{name}").write_text(text)
    (tmp_path / "memory/memory.stat").write_text("total_inactive_file 30\n")
    assert _cgroup_free(tmp_path) == [20]
