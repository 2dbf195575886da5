"""The benchmark measures what it says it does, peers through their callable."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cssta import benchmark
from tests.cssta.oracle import oracle_attention


def test_the_clip_has_the_size_and_hole_that_were_asked_for():
    video, masks = benchmark.clip(6, 120, 216, 0.15)
    assert video.shape == (6, 120, 216, 3) and masks.shape == (6, 120, 216)
    assert masks.mean() == pytest.approx(0.15, abs=0.02)
    assert np.array_equal(video[1, :, :-1], video[0, :, 1:]), "the texture drifts"
    assert video.std() > 20


def test_dense_attention_is_the_definition():
    layer = benchmark.DenseAttention(
        benchmark.inpainter("float32", "tiny").network.refinement.attention
    )
    layer.double()
    rng = torch.manual_seed(0)
    targets, references = (torch.randn(n, 3, 6, 7, generator=rng).double() for n in (2, 3))
    hole, hidden = ((torch.rand(n, 1, 6, 7, generator=rng) < 0.2).double() for n in (2, 3))
    result, _ = layer(targets, references, hole, hidden)
    expected = oracle_attention(
        targets,
        references.expand(2, -1, -1, -1, -1),
        hole,
        hidden.expand(2, -1, -1, -1, -1),
        scale=layer.log_scale.exp().item(),
    )
    assert torch.allclose(result, expected, rtol=1e-9)


def test_a_table_of_methods_models_and_peers(tmp_path, capsys, monkeypatch):
    peer = tmp_path / "peer.py"
    peer.write_text("def inpaint(frames, masks):\n    return frames\n")
    monkeypatch.setattr(benchmark, "alone", lambda module, case: benchmark.measure(case))
    report = tmp_path / "bench.json"
    benchmark.main(
        ["--sizes", "64x48", "--frames", "3", "--sizes-of-model", "tiny", "--json", str(report),
         "--methods", "networks", "float32", "dense", "--peer", f"{peer}:inpaint"]
    )  # fmt: skip
    written = json.loads(report.read_text())
    rows = {row["method"]: row for row in written["rows"]}
    assert rows[f"{peer}:inpaint"]["gflops"] == 0
    assert 0 < rows["float32"]["gflops"] < rows["dense"]["gflops"]
    assert all(row["seconds"] > 0 and row["peak_mib"] > 50 for row in rows.values())
    assert written["machine"]["torch"] == torch.__version__
    assert capsys.readouterr().out.count("64x48") == 4


def test_what_fails_is_said_and_the_rest_is_measured(tmp_path, capsys, monkeypatch):
    def fails(module, case):
        if case["method"] == "dense":
            raise RuntimeError("MemoryError: does not fit")
        return benchmark.measure(case)

    monkeypatch.setattr(benchmark, "alone", fails)
    benchmark.main(
        ["--sizes", "16x16", "--frames", "1", "--methods", "dense", "float32",
         "--sizes-of-model", "tiny", "--json", str(tmp_path / "bench.json")]
    )  # fmt: skip
    first, second = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert first["error"] == "MemoryError: does not fit" and second["seconds"] > 0
    assert first["error"] in capsys.readouterr().out


def test_dense_scores_that_do_not_fit_are_not_tried():
    case = {"method": "dense", "model": "tiny", "size": "12800x12800", "frames": 1, "hole": 0.1}
    with pytest.raises(MemoryError, match="does not fit"):
        benchmark.measure(case | {"threads": 1})
