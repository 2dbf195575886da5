"""LPIPS and VFID by TorchMetrics, with tiny random networks in the place of the trained ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cssta.evaluation.perceptual import (
    Lpips,
    Networks,
    PerceptualError,
    VideoFeatures,
    frechet_distance,
)
from tests.cssta.evaluation.conftest import panning


class Logits(torch.nn.Module):
    """Stands for I3D: five numbers per frame-pair of a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(3, 5, (2, 8, 8), (2, 8, 8))

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.layer(video).mean((3, 4))


@pytest.fixture
def i3d(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "i3d.pt"
    torch.jit.trace(Logits(), torch.zeros(1, 3, 4, 48, 64)).save(str(path))
    return path


def test_frechet_distance_of_known_clouds():
    rng = np.random.default_rng(0)
    real = list(rng.normal(0, 1, (50, 4)))
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, [one + 2 for one in real]) == pytest.approx(4 * 2**2)
    # Twice as wide about the same mean: the sum of (sigma - 2 sigma) squared.
    centre = np.mean(real, axis=0)
    wide = [centre + 2 * (one - centre) for one in real]
    assert frechet_distance(real, wide) == pytest.approx(np.var(real, axis=0, ddof=1).sum())
    assert np.isnan(frechet_distance(real[:1], real[:1]))


def test_logits_of_a_clip_are_its_mean_over_time(i3d: Path):
    features = VideoFeatures(i3d)
    clip = panning(6)
    found = features(clip)
    parts = [features(clip[t : t + 2]) for t in (0, 2, 4)]
    assert found.shape == (5,) and np.allclose(found, np.mean(parts, axis=0), atol=1e-6)
    with pytest.raises(PerceptualError, match=r"fails on a clip \(1, 3, 1, 48, 64\)"):
        features(clip[:1])
    assert "i3d.pt" in features.note


def test_what_is_missing_is_named(i3d: Path, tmp_path: Path, monkeypatch):
    assert Networks().load().lpips is None and Networks().load().features is None
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(PerceptualError, match=r"text\.pt: is no TorchScript"):
        Networks(vfid=tmp_path / "text.pt").load()
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(PerceptualError, match=r"VFID needs TorchMetrics.*cssta\[metrics\]"):
        Networks(vfid=i3d).load()
    with pytest.raises(PerceptualError, match=r"LPIPS needs TorchMetrics.*cssta\[metrics\]"):
        Networks(lpips=tmp_path / "alexnet.pth").load()


def test_lpips(tmp_path: Path):
    try:
        from torchvision.models import squeezenet1_1
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision that fits this torch: {error}")
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    before = torch.hub.get_dir()
    lpips = Lpips(tmp_path / "squeezenet.pth")
    assert torch.hub.get_dir() == before and "squeeze (squeezenet.pth)" in lpips.note
    clip = panning(3)
    masks = np.zeros(clip.shape[:3], bool)
    assert np.isnan(lpips(255 - clip, clip, masks))
    masks[:2, 8:24, 8:24] = True
    near, far = np.clip(clip.astype(int) + 4, 0, 255).astype(np.uint8), 255 - clip
    assert lpips(clip, clip, masks) == 0 < lpips(near, clip, masks) < lpips(far, clip, masks)
    # The third frame has no hole: what is in it does not count.
    other = far.copy()
    other[2] = clip[2]
    assert lpips(other, clip, masks) == lpips(far, clip, masks)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(PerceptualError, match=r"text\.pth: holds no weights of AlexNet"):
        Lpips(tmp_path / "text.pth")
