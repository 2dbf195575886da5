"""LPIPS and VFID, for who has the networks' weights: none of them is shipped.

`pip install 'cssta[metrics]'` brings TorchMetrics, which computes both; the networks are:

LPIPS: torchvision's own weights of AlexNet, VGG16 or SqueezeNet 1.1, such as
       alexnet-owt-7be5be79.pth (the linear weights on top come with TorchMetrics).
VFID:  an I3D as a TorchScript file: float (1, 3, T, H, W) in [-1, 1] to logits (1, C) or
       (1, C, ...), of which the mean is taken. The field's is I3D of Kinetics-400.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

REMEDY = "install it: pip install 'cssta[metrics]'"
FEWEST = 2  # videos that a Fréchet distance takes


class PerceptualError(ValueError):
    """Weights or a library that LPIPS or VFID need and that are not there; names the remedy."""


@dataclass(frozen=True)
class Networks:
    """Which weights the user supplied; None: that metric is said to be absent."""

    lpips: Path | None = None
    vfid: Path | None = None

    def load(self, device: str | None = None) -> Perception:
        """Raises PerceptualError for a file that is none, or a library that is not installed."""
        return Perception(
            None if self.lpips is None else Lpips(self.lpips, device),
            None if self.vfid is None else VideoFeatures(self.vfid, device),
        )


@dataclass(frozen=True)
class Perception:
    """The networks, loaded; None where there are no weights."""

    lpips: Lpips | None = None
    features: VideoFeatures | None = None


class Lpips:
    """Learned perceptual similarity (Zhang et al. 2018) by TorchMetrics; 0 is equal."""

    def __init__(self, weights: Path, device: str | None = None) -> None:
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
            from torchvision import models
        except (ImportError, RuntimeError) as error:  # (RuntimeError: made for another torch)
            reason = f"needs TorchMetrics and a torchvision that fits torch {torch.__version__}"
            raise PerceptualError(f"LPIPS {reason} ({error}); {REMEDY}") from error
        net, entry = {
            "alex": ("alex", models.AlexNet_Weights.DEFAULT),
            "vgg": ("vgg", models.VGG16_Weights.DEFAULT),
            "squeeze": ("squeeze", models.SqueezeNet1_1_Weights.DEFAULT),
        }[_backbone(weights)]
        before = torch.hub.get_dir()
        # TorchMetrics takes the backbone from torch.hub's folder and would download it otherwise.
        with tempfile.TemporaryDirectory(prefix="cssta-lpips-") as folder:
            place = Path(folder) / "checkpoints" / Path(entry.url).name
            place.parent.mkdir()
            shutil.copyfile(weights, place)
            torch.hub.set_dir(folder)
            try:
                self.metric = LearnedPerceptualImagePatchSimilarity(net_type=net)
            except RuntimeError as error:
                raise PerceptualError(f"{weights}: are no weights of {net} ({error})") from error
            finally:
                torch.hub.set_dir(before)
        self.device = torch.device(device or "cpu")
        self.metric.to(self.device)
        self.note = f"LPIPS: {net} ({weights.name})"

    @torch.inference_mode()
    def __call__(self, result: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> float:
        """Mean over the frames with a hole; clips uint8 (T, H, W, 3), masks bool (T, H, W)."""
        holes = np.flatnonzero(masks.any(axis=(1, 2)))
        if not len(holes):
            return math.nan
        values = [float(self.metric(*self._pair(result[t], truth[t]))) for t in holes]
        self.metric.reset()
        return float(np.mean(values))

    def _pair(self, *frames: np.ndarray) -> list[torch.Tensor]:
        return [_tensor(frame[None], self.device).permute(0, 3, 1, 2) for frame in frames]


class VideoFeatures:
    """A clip's logits by the user's I3D: what VFID compares."""

    def __init__(self, script: Path, device: str | None = None) -> None:
        _torchmetrics()  # (told now, not after hours of completing)
        self.device = torch.device(device or "cpu")
        try:
            self.network = torch.jit.load(str(script), map_location=self.device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PerceptualError(
                f"{script}: is no TorchScript file of I3D ({reason}); make one by torch.jit.trace"
            ) from error
        self.note = f"VFID: {script.name}"

    @torch.inference_mode()
    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) to float64 (C,)."""
        video = _tensor(clip, self.device).permute(3, 0, 1, 2)[None]
        try:
            logits = self.network(video)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            shape = tuple(video.shape)
            raise PerceptualError(f"the I3D network fails on a clip {shape}: {reason}") from error
        logits = logits.double()
        return (logits.flatten(2).mean(2) if logits.dim() > 2 else logits)[0].cpu().numpy()


def frechet_distance(real: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> float:
    """VFID: between the logits (C,) of the true clips and of the completed ones; nan below two."""
    if min(len(real), len(made)) < FEWEST:
        return math.nan
    frechet = _torchmetrics()

    class Given(torch.nn.Module):
        num_features = len(real[0])

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    metric = frechet(feature=Given()).set_dtype(torch.float64)
    for features, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(np.stack(features)).double(), real=is_real)
    return float(metric.compute())


def _torchmetrics():
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise PerceptualError(f"VFID needs TorchMetrics ({error}); {REMEDY}") from error
    return FrechetInceptionDistance


def _tensor(clip: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(clip)).to(device).float() / 127.5 - 1


def _backbone(weights: Path) -> str:
    """Which network a file's weights are of, by their names and shapes."""
    try:
        state = torch.load(weights, map_location="meta", weights_only=True)
        first = tuple(state["features.0.weight"].shape)
    except Exception as error:
        reason = " ".join(str(error).split(".")[0].split())[:200]
        raise PerceptualError(
            f"{weights}: holds no weights of AlexNet, VGG16 or SqueezeNet ({reason}); take "
            "torchvision's, such as alexnet-owt-7be5be79.pth"
        ) from error
    if first[2:] == (11, 11):
        return "alex"
    return "squeeze" if "features.3.squeeze.weight" in state else "vgg"
