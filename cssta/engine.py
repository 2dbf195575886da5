"""Completing a video with a trained model: `Inpainter.load(...).inpaint(frames, masks)`.

Shapes: T frames of a clip, H and W its size, any; N frames of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cssta.backbone import SCALE
from cssta.checkpoint import Model, load_model, pick_device
from cssta.inpainting import Encoded, composite
from cssta.membrane import match_surroundings
from cssta.references import ReferencePlan, frames_with_hole
from cssta.training.batches import to_uint8

Progress = Callable[[int, int], None]


class Inpainter:
    """A model on a device, ready to complete videos of any size and length."""

    def __init__(
        self, model: Model, device: torch.device, plan: ReferencePlan | None = None
    ) -> None:
        self.device = device
        self.plan = plan or ReferencePlan()
        layout = torch.channels_last
        self.network = model.inpainter.to(device, memory_format=layout).eval()
        self.temporal = model.temporal and model.temporal.to(device, memory_format=layout).eval()
        # One target at a time wastes nothing; a GPU wants more at once to be busy.
        self.batch = 8 if device.type == "cuda" else 1
        # A CPU's bfloat16 matrix unit makes unfolded patches the faster way to the same result.
        # (Older PyTorch cannot be asked.)
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        matrix_unit = device.type == "cpu" and capabilities.get("amx_bf16", False)
        self.mixed_precision = device.type == "cuda" or matrix_unit
        self.network.refinement.attention.unfold = matrix_unit

    @classmethod
    def load(
        cls, source: str | Path | None = None, device: str | torch.device | None = None
    ) -> Inpainter:
        """Load a model folder, or the default weights for None; the first GPU if there is one.

        Raises CheckpointError when the folder is not a usable model.
        """
        return cls(load_model(source), pick_device(device))

    @torch.inference_mode()
    def inpaint(
        self, frames: np.ndarray, masks: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Complete the holes of a clip.

        Args:
            frames: uint8 (T, H, W, 3) RGB, T >= 1.
            masks: bool (T, H, W), True = hole. Whatever the frames hold there is ignored.
            progress: called with (frames completed, frames to complete) as they are done.

        Returns:
            uint8 (T, H, W, 3), equal to `frames` bit for bit wherever the mask is False.

        Raises:
            ValueError: types or shapes are not as above.
        """
        check_clip(frames, masks)
        height, width = frames.shape[1:3]
        result = frames.copy()
        targets = frames_with_hole(masks)
        incomplete = set(targets)
        bank = _Bank(self, frames, masks)
        previous, hidden = None, None
        for start in range(0, len(targets), self.batch):
            batch = targets[start : start + self.batch]
            completed = self._complete(bank, batch, len(frames))
            bank.forget_before(batch[0] - max(self.plan.near, default=0))
            for index, frame in zip(batch, completed, strict=True):
                frame = frame[None]
                if self.temporal is not None:
                    # A frame without a hole is its own output: the recurrence starts anew from it.
                    if index and index - 1 not in incomplete:
                        previous, hidden = bank.pixels(index - 1)[0], None
                    previous = frame if previous is None else previous
                    mask = bank.kept[index].masks
                    with self._autocast():
                        frame, hidden = self.temporal(frame, previous, mask, hidden)
                    previous = frame = frame.float()
                pixels = to_uint8(frame[..., :height, :width])[0]
                result[index] = np.where(masks[index, ..., None], pixels, frames[index])
            if progress is not None:
                progress(min(start + self.batch, len(targets)), len(targets))
        return result

    def _complete(self, bank: _Bank, targets: list[int], length: int) -> Tensor:
        """Composites (N, 3, H', W') of the targets at padded size."""
        references = self.plan.for_targets(targets, length)
        bank.encode([*targets, *references])
        target = bank.gather(targets)
        allowed = torch.tensor([[r != t for r in references] for t in targets], dtype=torch.bool)
        allowed = allowed.reshape(len(targets), len(references)).to(self.device)
        with self._autocast():
            features, feature_masks = bank.references(references, like=target)
            completion = self.network.complete(
                target, features, feature_masks, None if allowed.all() else allowed
            )
        output = match_surroundings(completion.output.float(), target.frames, target.masks)
        return composite(output.clamp(-1, 1), target.frames, target.masks)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision)


class _Bank:
    """Every frame's encoding, made once when first asked for and dropped when no longer near."""

    def __init__(self, inpainter: Inpainter, frames: np.ndarray, masks: np.ndarray) -> None:
        self.inpainter, self.frames, self.masks = inpainter, frames, masks
        self.kept: dict[int, Encoded] = {}
        self.always = set(inpainter.plan.spread(len(frames)))

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """Frame (1, 3, H', W') in [-1, 1] and mask (1, 1, H', W'), padded to multiples of 4.

        The border is repeated, and with it the mask: a hole at the border stays one beyond it.
        """
        device = self.inpainter.device
        # Copies, since the arrays may be read-only or views that run backwards.
        frame = torch.from_numpy(self.frames[index].copy()).to(device).permute(2, 0, 1)[None]
        mask = torch.from_numpy(self.masks[index].copy()).to(device)[None, None].float()
        height, width = mask.shape[2:]
        padding = [0, -width % SCALE, 0, -height % SCALE]
        frame = F.pad(frame.float() / 127.5 - 1, padding, mode="replicate")
        return frame, F.pad(mask, padding, mode="replicate")

    def encode(self, indices: list[int]) -> None:
        """Make sure that these frames are encoded."""
        missing = sorted(set(indices) - set(self.kept))
        for start in range(0, len(missing), self.inpainter.batch):
            part = missing[start : start + self.inpainter.batch]
            pixels = [self.pixels(index) for index in part]
            with self.inpainter._autocast():
                encoded = self.inpainter.network.encode(
                    torch.cat([frame for frame, _ in pixels]), torch.cat([m for _, m in pixels])
                )
            for row, index in enumerate(part):
                self.kept[index] = Encoded(
                    *(value[row : row + 1] for value in vars(encoded).values())
                )

    def gather(self, indices: list[int]) -> Encoded:
        """These frames as one batch."""
        rows = [vars(self.kept[index]).values() for index in indices]
        return Encoded(*(torch.cat(column) for column in zip(*rows, strict=True)))

    def references(self, indices: list[int], like: Encoded) -> tuple[Tensor, Tensor]:
        """Features (R, C, h, w) and masks (R, 1, h, w) of the references; R may be 0."""
        if not indices:
            return like.features[:0], like.feature_masks[:0]
        gathered = self.gather(indices)
        return gathered.features, gathered.feature_masks

    def forget_before(self, index: int) -> None:
        """Drop what no later target needs, so that memory does not grow with the clip."""
        for key in [k for k in self.kept if k < index and k not in self.always]:
            del self.kept[key]


def check_clip(frames: np.ndarray, masks: np.ndarray) -> None:
    """Raise ValueError unless frames are uint8 (T, H, W, 3) and masks bool (T, H, W), T >= 1."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = getattr(frames, "dtype", type(frames))
        raise ValueError(f"frames must be a uint8 array, not {kind}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be (T, H, W, 3) with T, H, W >= 1, not {frames.shape}")
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_:
        raise ValueError(f"masks must be a bool array, not {getattr(masks, 'dtype', type(masks))}")
    if masks.shape != frames.shape[:3]:
        raise ValueError(
            f"masks must be {frames.shape[:3]}, one per frame and of its size, not {masks.shape}"
        )
