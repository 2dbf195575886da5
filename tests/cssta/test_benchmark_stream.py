"""A stream that keeps what it has seen is told from one that does not."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import pytest

from cssta import Inpainter, benchmark_stream
from cssta.benchmark_stream import FLAT_MIB, endless, growth

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the resident size")


def arguments(report, *more: str) -> list[str]:
    return ["--model-size", "tiny", "--frames", "150", "--methods", "networks", "--hole-every",
            "25", "--hole", "0.02", "--json", str(report), *more]  # fmt: skip


@linux
def test_a_stream_stays_flat_whatever_its_length(tmp_path, capsys):
    benchmark_stream.main(arguments(tmp_path / "rows.json"))
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["flat"] and abs(row["growth_mib"]) < FLAT_MIB and len(row["resident_mib"]) == 10
    assert 50 < max(row["resident_mib"]) <= row["highest_mib"]
    assert capsys.readouterr().out.count("| networks | tiny |") == 1


@linux
def test_one_that_keeps_its_frames_is_found(tmp_path, monkeypatch):
    plain, kept = Inpainter.stream, []

    def keeps(self, pairs):
        for frame in plain(self, pairs):
            kept.append(frame.astype(np.float32))  # more than other tests gave back
            yield frame

    monkeypatch.setattr(Inpainter, "stream", keeps)
    monkeypatch.setattr(benchmark_stream, "alone", lambda _, case: benchmark_stream.measure(case))
    with pytest.raises(SystemExit, match="memory grew with the clip: networks"):
        benchmark_stream.main(arguments(tmp_path / "rows.json"))
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["growth_mib"] > FLAT_MIB and not row["flat"]


def test_growth_is_seen_past_the_start_and_noise():
    assert growth([100, *[400] * 9]) == 0
    assert growth([100, 400, 405, 395, 400, 400, 400, 410, 390, 400]) == pytest.approx(0)
    assert growth(list(range(0, 1000, 100))) == 600


def test_frames_are_arrays_of_their_own_and_holes_come_as_often_as_asked():
    pairs = list(endless(200, 24, 40, 0.2, every=3))
    assert len({id(frame) for frame, _ in pairs}) == 200
    assert all(frame.base is None and mask.base is None for frame, mask in pairs)
    assert [mask.any() for _, mask in pairs] == [number % 3 == 0 for number in range(200)]
    apart = (abs(b.astype(int) - a).mean() for (a, _), (b, _) in pairwise(pairs))
    least, *_, most = sorted(apart)
    assert least > 0 and most < 3 * least, "no cut where it turns back"


def test_too_few_frames_for_ten_readings_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark_stream.main(["--frames", "9"])
    assert "10 or more" in capsys.readouterr().err
