"""The CSSTA layer: coherent semantic spatial-temporal attention (Sec. 2.1, eq. 1 to 3).

Shapes: B batch, T targets and R references of one clip, C channels, H and W the map's size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cssta.diagonal_sum import Geometry
from cssta.fused_attention import attend, attend_learning
from cssta.patch_attention import PatchAttention, Setting
from cssta.reference_tiles import ReferenceTiles, norm_inverse
from cssta.uncompiled import uncompiled
from cssta.unfold_attention import unfold_attention

# Bytes that one block's score matrices may take, forward; the backward pass takes about as much.
SCORE_BUDGET = 128 * 2**20


def cssta_attention(
    target: Tensor,
    references: Tensor,
    target_mask: Tensor,
    reference_masks: Tensor,
    *,
    patch_size: int = 3,
    scale: float | Tensor = 10.0,
) -> Tensor:
    """Attention of one target frame per batch item over its references and its own hole.

    Args:
        target: features (B, C, H, W), B >= 0.
        references: features (B, R, C, H, W), R >= 0.
        target_mask: (B, 1, H, W), 1 = hole, at feature scale.
        reference_masks: (B, R, 1, H, W), 1 = hole.
        patch_size: odd side of the patches of eq. 1.
        scale: the softmax's inverse temperature, a number or a 0-d tensor that learns.

    Returns:
        `S_att` (B, C, H, W) of eq. 3, zero outside the hole.

    Raises:
        ValueError: shapes that do not fit each other, or an even patch size.
    """
    _check(target, references, target_mask, reference_masks, patch_size)
    if not len(target):
        return torch.zeros_like(target)
    outputs = [
        attend_clip(
            target[b : b + 1],
            references[b],
            target_mask[b : b + 1],
            reference_masks[b],
            scale=scale,
            patch_size=patch_size,
        )[0]
        for b in range(target.shape[0])
    ]
    return torch.cat(outputs)


def attend_clip(
    targets: Tensor,
    references: Tensor,
    target_masks: Tensor,
    reference_masks: Tensor,
    *,
    scale: float | Tensor,
    patch_size: int = 3,
    allowed: Tensor | None = None,
    budget: int = SCORE_BUDGET,
    track_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """`S_att` of several targets of one clip that share one bank of references.

    Args:
        targets: (T, C, H, W). references: (R, C, H, W). target_masks: (T, 1, H, W).
        reference_masks: (R, 1, H, W).
        allowed: bool (T, R), which reference each target may use; None: all.
        budget: bytes for score matrices, whatever R is (the references themselves come on top);
            less memory costs more passes, never accuracy.
        track_entropy: also measure how spread the attention is.

    Returns:
        `S_att` (T, C, H, W), zero outside the holes, and the entropy of eq. 1's softmax in nats,
        its mean over all queries that see any key (no gradient; nan if none does or not tracked).
    """
    hole = target_masks > 0.5
    inter, entropy = inter_frame_attention(
        targets,
        references,
        hole,
        reference_masks,
        scale=scale,
        patch_size=patch_size,
        allowed=allowed,
        budget=budget,
        track_entropy=track_entropy,
    )
    return inter + hole_region_attention(targets, hole, scale=scale), entropy


@uncompiled  # sizes of all it makes depend on the masks' values
def inter_frame_attention(
    targets,
    references,
    hole,
    reference_masks,
    *,
    scale,
    patch_size=3,
    allowed=None,
    budget=SCORE_BUDGET,
    track_entropy=False,
) -> tuple[Tensor, Tensor]:
    """Eq. 1, at hole positions only; arguments as in `attend_clip`, `hole` bool (T, 1, H, W)."""
    frames, channels, height, width = targets.shape
    geometry = Geometry(height, width, patch_size // 2)
    positions = geometry.pad(hole).flatten().nonzero().squeeze(1)
    if references.shape[0] == 0 or len(positions) == 0:
        return torch.zeros_like(targets), targets.new_full((), torch.nan)

    dtype = torch.promote_types(targets.dtype, references.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    half_dtype = _half_dtype(targets)
    with torch.autocast(targets.device.type, enabled=False):
        pixels = geometry.pad(targets.to(dtype))
        query_scale = norm_inverse(pixels, geometry).flatten() * scale
        pixels = pixels.flatten(0, 1)
        tiles = ReferenceTiles(
            references.detach(),
            reference_masks,
            geometry,
            dtype,
            targets.device,
            limit=budget // (16 * dtype.itemsize),
        )
        setting = Setting(
            positions,
            geometry,
            frames,
            tiles,
            allowed,
            # Cosines are at most 1, but for rounding.
            bound=1.001 * abs(float(torch.as_tensor(scale).detach())),
            budget=budget,
            half_dtype=half_dtype,
            track_entropy=track_entropy,
        )
        result, entropies = PatchAttention.apply(pixels, query_scale, references, setting)
        output = pixels.new_zeros(len(pixels), channels).index_copy(0, positions, result)
    inside = geometry.crop(output.unflatten(0, (frames, -1)))
    return inside.to(targets.dtype), entropies.nanmean()


@uncompiled  # likewise
def hole_region_attention(targets: Tensor, hole: Tensor, *, scale: float | Tensor) -> Tensor:
    """Eq. 2: every 1x1 block of a target's hole over all blocks of the same hole.

    `targets` (T, C, H, W), `hole` bool (T, 1, H, W) -> (T, C, H, W), zero outside the hole.
    """
    frames, channels, height, width = targets.shape
    flat = targets.flatten(2).transpose(1, 2)
    outputs = []
    for features, inside in zip(flat, hole.flatten(1), strict=True):
        index = inside.nonzero().squeeze(1)
        output = torch.zeros_like(features)
        if len(index):
            values = features[index]
            unit = values / values.norm(dim=1, keepdim=True).clamp_min(1e-6)
            parts = (unit * scale).to(values.dtype), unit, values
            if targets.device.type == "cpu" and not torch.is_grad_enabled():
                half = _half_dtype(targets) or values.dtype
                mixed, _ = attend(*(part.to(half) for part in parts))
            else:
                mixed = attend_learning(*parts)
            output = output.index_copy(0, index, mixed.to(output.dtype))
        outputs.append(output)
    return torch.stack(outputs).transpose(1, 2).reshape(frames, channels, height, width)


class CSSTALayer(nn.Module):
    """`attend_clip` with a learned temperature: a fixed one drowns among many keys.

    `parts`: of `cssta.config.ATTENTIONS`, which of the two attentions there are. Without any, what
    comes out in the hole is the target's own features: those of a layer that is not there.
    """

    def __init__(self, initial_scale: float, parts: str = "full") -> None:
        super().__init__()
        self.parts = parts
        self.track_entropy = False  # costs another pass over all scores
        self.unfold = False  # see `cssta.unfold_attention`: the same result, for matrix units
        self.log_scale = nn.Parameter(torch.tensor(float(initial_scale)).log())

    def forward(
        self,
        targets: Tensor,
        references: Tensor,
        target_masks: Tensor,
        reference_masks: Tensor,
        allowed: Tensor | None = None,
        budget: int = SCORE_BUDGET,
    ) -> tuple[Tensor, Tensor]:
        """As `attend_clip`."""
        scale = self.log_scale.exp()
        hole = target_masks > 0.5
        if self.parts == "none":
            return targets * hole, targets.new_full((), torch.nan)
        if self.parts == "hole-region":
            inter, entropy = 0, targets.new_full((), torch.nan)
        else:
            inter, entropy = (unfold_attention if self.unfold else inter_frame_attention)(
                targets,
                references,
                hole,
                reference_masks,
                scale=scale,
                allowed=allowed,
                budget=budget,
                track_entropy=self.track_entropy,
            )
        if self.parts == "inter-frame":
            return inter, entropy
        return inter + hole_region_attention(targets, hole, scale=scale), entropy


def _half_dtype(tensor: Tensor) -> torch.dtype | None:
    """Type for the matrix products: autocast's where it is on, a half-precision input's own."""
    if torch.is_autocast_enabled(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype if tensor.dtype in (torch.float16, torch.bfloat16) else None


def _check(target, references, target_mask, reference_masks, patch_size) -> None:
    if target.dim() != 4 or references.dim() != 5:
        raise ValueError("target must be (B, C, H, W) and references (B, R, C, H, W)")
    batch, channels, height, width = target.shape
    count = references.shape[1]
    expected = {
        "references": (references, (batch, count, channels, height, width)),
        "target_mask": (target_mask, (batch, 1, height, width)),
        "reference_masks": (reference_masks, (batch, count, 1, height, width)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
    if patch_size < 1 or patch_size % 2 == 0:
        raise ValueError(f"patch_size must be odd and >= 1, not {patch_size}")
