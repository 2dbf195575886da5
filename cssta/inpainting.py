"""The two-stage inpainter: coarse completion, then refinement with CSSTA attention (Sec. 2.4).

Shapes: B clips, T frames of a clip, N frames in all, H and W image size (multiples of 4), C
feature channels at h = H / 4 and w = W / 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cssta.attention import SCORE_BUDGET, CSSTALayer
from cssta.backbone import Decoder, Encoder, feature_mask
from cssta.config import ModelConfig
from cssta.gated import GatedConv, ResidualGatedConv
from cssta.membrane import fill_smoothly


def composite(output: Tensor, frames: Tensor, masks: Tensor) -> Tensor:
    """`output` inside the hole, the given frames outside."""
    return output * masks + frames * (1 - masks)


class CoarseNetwork(nn.Module):
    """Stage 1: every frame alone, giving `P_t` as a correction to a smooth first guess.

    (The paper blanks the hole: a worse guess, and where the hole is wider than the receptive field,
    the only one that its middle would ever get.)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.coarse_width, config.dilations)
        self.decoder = Decoder(config.coarse_width)
        # Untrained, the stage answers with its first guess: it learns what is wrong with that.
        nn.init.zeros_(self.decoder.image.weight)
        nn.init.zeros_(self.decoder.image.bias)

    def forward(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Frames (N, 3, H, W), masks (N, 1, H, W) -> `P_t` (N, 3, H, W), unclamped."""
        guess = fill_smoothly(frames, masks)
        correction, _ = self.decoder(self.encoder(guess, masks))
        return guess + correction


@dataclass
class Encoded:
    """What a frame needs to serve as target or reference; one entry per frame along dimension 0.

    `coarse` is `P_t`, `frames` the composite, both (N, 3, H, W); `features` (N, C, h, w) are the
    attention branch's.
    """

    coarse: Tensor
    frames: Tensor
    masks: Tensor
    features: Tensor
    feature_masks: Tensor


@dataclass
class Completion:
    """The answer for targets: images (N, 3, H, W) unclamped, decoder activations, and the
    attention's mean entropy in nats, nan unless tracked."""

    output: Tensor
    activations: list[Tensor]
    entropy: Tensor


class RefinementNetwork(nn.Module):
    """Stage 2: target branch and attention branch, joined and decoded."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.target_encoder = Encoder(config.width, config.dilations)
        self.attention_encoder = Encoder(config.width, config.dilations)
        channels = self.attention_encoder.channels
        self.attention = CSSTALayer(config.attention_scale, config.attention)
        self.target_tail = nn.Sequential(
            *(ResidualGatedConv(channels, dilation) for dilation in (1, 2))
        )
        self.fuse = GatedConv(2 * channels, channels)
        self.decoder = Decoder(config.width)

    def join(self, target: Tensor, own: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        """Both branches at 1/4 scale -> what the decoder sees; all (N, C, h, w).

        `attended` is `S_att * M_t`. The target branch goes on from `F_att = F_t + S_att * M_t`; the
        attention branch leaves its own features outside the hole and the attended ones inside.
        """
        target = self.target_tail(target + attended)
        return self.fuse(torch.cat([target, own * (1 - mask) + attended], dim=1))


class InpaintingNetwork(nn.Module):
    """Coarse and refinement stages with any number of reference frames.

    `checkpointing`: remember no activations within encoders and decoders for the backward pass, but
    compute them again. (Attention never remembers any.)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.coarse = CoarseNetwork(config)
        self.refinement = RefinementNetwork(config)

    def encode(self, frames: Tensor, masks: Tensor) -> Encoded:
        """Stage 1 and the attention branch's encoder, once per frame, whatever its later roles.

        Frames (N, 3, H, W) in [-1, 1] (values under the hole are ignored), masks (N, 1, H, W).
        """
        coarse = self._run(self.coarse, frames, masks)
        merged = composite(coarse, frames, masks)
        features = self._run(self.refinement.attention_encoder, merged, masks)
        return Encoded(coarse, merged, masks, features, feature_mask(masks))

    def complete(
        self,
        target: Encoded,
        references: Tensor,
        reference_masks: Tensor,
        allowed: Tensor | None = None,
        budget: int = SCORE_BUDGET,
    ) -> Completion:
        """Stage 2 for targets of one clip that share references.

        `references` (R, C, h, w) and `reference_masks` (R, 1, h, w) are `Encoded` features and
        feature masks; `allowed` bool (N, R) says which reference each target may use.
        """
        attended, entropy = self.refinement.attention(
            target.features, references, target.feature_masks, reference_masks, allowed, budget
        )
        return self.decode(target, attended, entropy)

    def forward(
        self, frames: Tensor, masks: Tensor, targets: int, allowed: Tensor | None = None
    ) -> tuple[Encoded, Completion]:
        """A training clip: the first `targets` frames are completed, all frames are encoded once.

        Frames (B, T, 3, H, W), masks (B, T, 1, H, W). Each target's references are the other
        T - 1 frames of its clip, of these only the `allowed` ones (targets, T) if given. Results
        run over B * T (encoded) and B * targets (completed).
        """
        batch, length = frames.shape[:2]
        encoded = self.encode(frames.flatten(0, 1), masks.flatten(0, 1))
        features = encoded.features.unflatten(0, (batch, length))
        feature_masks = encoded.feature_masks.unflatten(0, (batch, length))
        others = ~torch.eye(length, dtype=torch.bool, device=frames.device)[:targets]
        others = others if allowed is None else others & allowed
        results = [
            self.refinement.attention(
                features[b, :targets],
                features[b],
                feature_masks[b, :targets],
                feature_masks[b],
                others,
            )
            for b in range(batch)
        ]
        attended = torch.cat([result for result, _ in results])
        entropy = torch.stack([entropy for _, entropy in results]).nanmean()

        def first(tensor: Tensor) -> Tensor:
            return tensor.unflatten(0, (batch, length))[:, :targets].flatten(0, 1)

        target = Encoded(
            first(encoded.coarse),
            first(encoded.frames),
            first(encoded.masks),
            first(encoded.features),
            first(encoded.feature_masks),
        )
        return encoded, self.decode(target, attended, entropy)

    def decode(
        self, target: Encoded, attended: Tensor, entropy: Tensor | None = None
    ) -> Completion:
        """Stage 2 after the attention, whose result `S_att * M_t` is `attended` (N, C, h, w)."""
        refinement = self.refinement
        branch = self._run(refinement.target_encoder, target.frames, target.masks)
        joined = self._run(refinement.join, branch, target.features, attended, target.feature_masks)
        output, activations = self._run(refinement.decoder, joined)
        entropy = output.new_full((), torch.nan) if entropy is None else entropy
        return Completion(output, activations, entropy)

    def _run(self, part, *inputs):
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def start_from(self, im2im: nn.Module) -> None:
        """Begin stage 2 where IM2IM ended: it already encodes and decodes whole images.

        Both encoders and the decoder are the same classes, so attention over visible features
        decodes to something sensible from the first step on.
        """
        encoder, decoder = im2im.encoder.state_dict(), im2im.decoder.state_dict()
        self.refinement.target_encoder.load_state_dict(encoder)
        self.refinement.attention_encoder.load_state_dict(encoder)
        self.refinement.decoder.load_state_dict(decoder)
