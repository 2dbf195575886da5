"""The counts are what hand-computed sums say; the peak is what was allocated."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cssta.attention import CSSTALayer
from cssta.measure import EVERY_S, PeakMemory, alone, anonymous_bytes, count_flops, machine, timed
from cssta.unfold_attention import KEYS_ROUND


def test_a_convolution_and_a_fused_attention_count_two_per_multiply_add():
    image, kernel = torch.rand(1, 3, 8, 10), torch.rand(5, 3, 3, 3)
    assert count_flops(lambda: F.conv2d(image, kernel, padding=1)) == 2 * 8 * 10 * 5 * 3 * 9
    query, key, value = torch.rand(1, 1, 7, 16), torch.rand(1, 1, 11, 16), torch.rand(1, 1, 11, 16)
    assert count_flops(lambda: F.scaled_dot_product_attention(query, key, value)) == 2 * 7 * 11 * 32


def one_pixel_hole(references: int, size: int = 8, channels: int = 4):
    hole = torch.zeros(1, 1, size, size)
    hole[..., 3, 4] = 1
    maps = torch.rand(1 + references, channels, size, size)
    return maps[:1], maps[1:], hole, torch.zeros(references, 1, size, size)


def test_products_within_the_attentions_own_function_are_seen():
    layer = CSSTALayer(10.0)
    inputs = one_pixel_hole(references=3)
    columns = 3 * 10 * 10  # all references, padded
    # 25 pixels of 9 patches (and an absent row) against every column, then the one pixel of the
    # hole (and an absent row) from every column; its attention to itself is 2 products of 4.
    expected = 2 * 4 * (26 * columns + 2 * columns) + 2 * 2 * 4
    with torch.no_grad():
        assert count_flops(lambda: layer(*inputs)) == expected


def test_unfolded_patches_cost_nine_times_their_products():
    layer = CSSTALayer(10.0)
    layer.unfold = True
    inputs = one_pixel_hole(references=8)
    keys = 8 * 64
    assert keys == KEYS_ROUND  # more references would be filled up to the next multiple
    with torch.no_grad():  # 9 queries, 64 keys of each reference, both products of 36 channels
        assert count_flops(lambda: layer(*inputs)) == 2 * 9 * keys * (36 + 36) + 2 * 2 * 4


@pytest.mark.parametrize("unfold", [False, True])
def test_the_backward_pass_is_seen(unfold):
    layer = CSSTALayer(10.0)
    layer.unfold = unfold
    targets, references, hole, hidden = one_pixel_hole(references=8)
    references.requires_grad_()

    def step():
        layer(targets, references, hole, hidden)[0].sum().backward()

    with torch.no_grad():
        forward = count_flops(lambda: layer(targets, references, hole, hidden))
    assert count_flops(step) > 2 * forward


def test_the_peak_is_what_was_allocated():
    def allocate():
        array = np.ones(2**23)  # 64 MiB, gone again
        time.sleep(50 * EVERY_S)  # (a busy machine looks late)
        return array.sum()

    with PeakMemory() as memory:
        wall, cpu = timed(allocate)
    if not memory.cuda:
        assert memory.rise == pytest.approx(2**26, rel=0.2)
        assert anonymous_bytes() < memory.bytes
    assert wall > 0 and cpu > 0


def test_the_machine_has_a_name():
    assert all(machine().values())


def test_a_case_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "measured_alone.py").write_text(
        "import json, os, sys\n"
        "case = json.loads(sys.argv[2])\n"
        "assert case['size'], 'no size'\n"
        "print('noise')\n"
        "print(json.dumps(case | {'pid': os.getpid()}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = alone("measured_alone", {"size": 3})
    assert answer["size"] == 3 and answer["pid"] != os.getpid()
    with pytest.raises(RuntimeError, match="AssertionError: no size"):
        alone("measured_alone", {"size": 0})
