"""The benchmark counts what it says: FLOPs by hand-computed sums, peers by their callable."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cssta import benchmark


def test_a_convolution_and_a_fused_attention_count_two_per_multiply_add():
    image, kernel = torch.rand(1, 3, 8, 10), torch.rand(5, 3, 3, 3)
    convolve = lambda: torch.nn.functional.conv2d(image, kernel, padding=1)  # noqa: E731
    assert benchmark.count_flops(convolve) == 2 * 8 * 10 * 5 * 3 * 9
    query, key, value = torch.rand(1, 1, 7, 16), torch.rand(1, 1, 11, 16), torch.rand(1, 1, 11, 16)
    attend = lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)  # noqa: E731
    assert benchmark.count_flops(attend) == 2 * 7 * 11 * (16 + 16)


def test_the_clip_has_the_size_and_hole_that_were_asked_for():
    video, masks = benchmark.clip(6, 120, 216, 0.15)
    assert video.shape == (6, 120, 216, 3) and masks.shape == (6, 120, 216)
    assert masks.mean() == pytest.approx(0.15, abs=0.02)


def test_a_table_of_both_attentions_and_a_peer(tmp_path, capsys, monkeypatch):
    (tmp_path / "peer.py").write_text("def inpaint(frames, masks):\n    return frames\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = tmp_path / "bench.json"
    benchmark.main(
        ["--sizes", "64x48", "--frames", "3", "--model", "tiny", "--json", str(report),
         "--methods", "cssta", "dense", "peer:inpaint"]
    )  # fmt: skip
    rows = {row["method"]: row for row in json.loads(report.read_text())["rows"]}
    assert rows["peer:inpaint"]["gflops"] == 0
    assert 0 < rows["cssta"]["gflops"] < rows["dense"]["gflops"]
    assert all(np.isfinite(row["seconds"]) and row["peak_mib"] > 50 for row in rows.values())
    assert capsys.readouterr().out.count("64x48") == 3
