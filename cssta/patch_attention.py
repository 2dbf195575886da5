"""Patch attention from hole queries to reference keys, exact, scores in bounded memory (eq. 1).

Rows are only those query pixels that some hole pixel's patches need; columns are chunks of whole
references; see `cssta.diagonal_sum` for how patches are compared without unfolding them.

Shapes: N target frames, R references, C channels, Q queries, P hole pixels, L columns of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cssta.diagonal_sum import DiagonalSum, Geometry, Rows


@dataclass
class Plan:
    """Everything that depends on the masks alone, for one block of hole pixels."""

    geometry: Geometry
    pixels: Rows  # P: hole pixels whose output is wanted
    queries: Rows  # Q: centres of the patches that cover them
    patches: Rows  # all pixels of those patches
    counts: Tensor  # (P,) in-frame patches that cover each hole pixel: 4, 6 or 9 for 3x3
    allowed: Tensor | None  # (Q + 1, R) may this query look at that reference? None: always

    @classmethod
    def of(cls, positions: Tensor, geometry: Geometry, frames: int, allowed: Tensor | None) -> Plan:
        """Plan for hole pixels at `positions` (padded, flat, over all `frames`)."""
        device = positions.device
        total = frames * geometry.cells
        inside = (
            geometry.pad(
                torch.ones(1, 1, geometry.height, geometry.width, dtype=torch.bool, device=device)
            )
            .flatten()
            .repeat(frames)
        )
        horizontal = geometry.offsets(1, device)
        vertical = geometry.offsets(geometry.stride, device)
        pixels = Rows(positions, total)
        around = pixels.spread(vertical).spread(horizontal).positions
        queries = Rows(around[inside[around]], total)
        offsets = (vertical[:, None] + horizontal).flatten()
        counts = inside[positions[:, None] + offsets].sum(dim=1)
        if allowed is not None:
            allowed = F.pad(allowed[queries.positions // geometry.cells], (0, 0, 0, 1))
        patches = queries.spread(vertical).spread(horizontal)
        return cls(geometry, pixels, queries, patches, counts, allowed)


def norm_inverse(maps: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """1 / max(|patch|, 1e-6) at every padded cell: (N, C, H, W) -> (N, cells)."""
    # A norm per pixel, squared: unlike the sum of squares, it makes no other copy of the maps.
    square = torch.linalg.vector_norm(maps, dim=1, keepdim=True, dtype=dtype).square()
    size = 2 * geometry.half + 1
    square = F.pad(square, [geometry.half] * 4)
    total = F.avg_pool2d(square, size, 1, geometry.half, divisor_override=1)
    # The root is taken of a clamped sum, whose gradient is zero rather than infinite at zero.
    return total.flatten(1).clamp_min(1e-12).rsqrt()


class PatchAttention(torch.autograd.Function):
    """Softmax over all references' visible patches, two passes over chunks of references.

    The first pass finds each query's normaliser, the second weighs the values. Scores are kept
    between the passes while they fit `budget` bytes and formed again otherwise, so memory for
    scores does not grow with the number of references; their own features, norms and gradients do.
    The backward pass forms them again.
    """

    @staticmethod
    def forward(
        ctx, rows, references, row_scale, key_scale, visible, plan, budget, half_dtype, track
    ):
        """-> (P, C) outputs and, with `track`, (Q,) attention entropy in nats, nan for a query
        that sees no key (else zeros).

        `rows` (patch pixels + 1, C); `references` (R, C, H, W), keys and values, padded chunk by
        chunk; `row_scale` (Q + 1,) is temperature / |q|; `key_scale` (R, cells) is 1 / |k|;
        `visible` (R, cells) bool.
        """
        work = _Work(rows, references, row_scale, key_scale, visible, plan, budget, half_dtype)
        log_sum = work.normaliser()
        fold = DiagonalSum(plan.queries, plan.pixels, plan.geometry)
        output = rows.new_zeros(len(plan.pixels), rows.shape[1])
        entropy = rows.new_zeros(len(plan.queries))
        for chunk in work.chunks:
            weights, scores = work.weights(chunk, log_sum)
            if track:
                surprise = log_sum[:, None] - scores.clamp_min_(-1e30)
                entropy += torch.where(weights > 0, weights * surprise, 0).sum(dim=1)
            output += work.matmul(fold(weights), work.columns(chunk))
        ctx.save_for_backward(rows, references, row_scale, key_scale, visible, log_sum)
        ctx.settings = (plan, budget, half_dtype)
        output = output[:-1] / plan.counts[:, None]
        if track:
            entropy.masked_fill_(log_sum.isinf(), torch.nan)
        entropy = entropy[:-1]
        ctx.mark_non_differentiable(entropy)
        return output, entropy

    @staticmethod
    def backward(ctx, grad_output, _grad_entropy):
        rows, references, row_scale, key_scale, visible, log_sum = ctx.saved_tensors
        plan, budget, half_dtype = ctx.settings
        work = _Work(rows, references, row_scale, key_scale, visible, plan, budget // 2, half_dtype)
        unfold = DiagonalSum(plan.pixels, plan.queries, plan.geometry)
        fold = DiagonalSum(plan.queries, plan.pixels, plan.geometry)
        refold = DiagonalSum(plan.queries, plan.patches, plan.geometry)
        grad_pixels = F.pad(grad_output / plan.counts[:, None], (0, 0, 0, 1))
        grad_rows, grad_references = torch.zeros_like(rows), torch.zeros_like(references)
        grad_row_scale, grad_key_scale = torch.zeros_like(row_scale), torch.zeros_like(key_scale)

        def weights_and_gradient(chunk):
            weights, _ = work.weights(chunk, log_sum)
            return weights, unfold(work.matmul(grad_pixels, work.columns(chunk).T))

        mean = rows.new_zeros(len(plan.queries))
        single = None
        for chunk in work.chunks:
            weights, grad = weights_and_gradient(chunk)
            mean += (weights * grad).sum(dim=1)
            single = (weights, grad) if len(work.chunks) == 1 else None
        for chunk in work.chunks:
            weights, grad = single or weights_and_gradient(chunk)
            grad_columns = work.matmul(fold(weights).T, grad_pixels)
            grad_scores = weights.mul_(grad.sub_(mean[:, None]))
            products = work.products(chunk)
            scaled = key_scale[chunk].flatten()
            grad_row_scale += (grad_scores * products) @ scaled
            grad_scores *= row_scale[:, None]
            grad_key_scale[chunk] += (grad_scores * products).sum(dim=0).view_as(key_scale[chunk])
            grad_products = refold(grad_scores * scaled)
            grad_rows += work.matmul(grad_products, work.columns(chunk))
            grad_columns += work.matmul(grad_products.T, rows)
            grad_columns = grad_columns.unflatten(0, (-1, plan.geometry.cells))
            grad_references[chunk] = plan.geometry.crop(grad_columns)
        return grad_rows, grad_references, grad_row_scale, grad_key_scale, *[None] * 5


class _Work:
    """The scores of one block, chunk by chunk."""

    def __init__(self, rows, references, row_scale, key_scale, visible, plan, budget, half_dtype):
        self.rows, self.references, self.visible, self.plan = rows, references, visible, plan
        self.row_scale, self.key_scale = row_scale, key_scale
        self.half_dtype = half_dtype
        self.sum = DiagonalSum(plan.patches, plan.queries, plan.geometry)
        count = len(references)
        per_reference = rows.shape[0] * plan.geometry.cells * rows.element_size()
        # A chunk holds about four matrices at once; kept scores may take as much again.
        size = max(1, int(budget // (4 * per_reference)))
        self.chunks = [slice(i, min(i + size, count)) for i in range(0, count, size)]
        self.budget = budget
        self.kept: dict[int, Tensor] = {}

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        if self.half_dtype is not None:
            return (a.to(self.half_dtype) @ b.to(self.half_dtype)).to(a.dtype)
        return a @ b

    def columns(self, chunk: slice) -> Tensor:
        """Padded pixels of a chunk of references: (L, C)."""
        references = self.references[chunk].to(self.rows.dtype)
        return self.plan.geometry.pad(references).flatten(0, 1)

    def products(self, chunk: slice) -> Tensor:
        """<patch, patch> before any scaling: (Q + 1, L)."""
        return self.sum(self.matmul(self.rows, self.columns(chunk).T))

    def scores(self, chunk: slice) -> Tensor:
        """Scaled cosines, minus infinity for a key that a query may not see: (Q + 1, L)."""
        scores = self.products(chunk).mul_(self.key_scale[chunk].flatten())
        scores.mul_(self.row_scale[:, None])
        scores.masked_fill_(~self.visible[chunk].flatten(), float("-inf"))
        if self.plan.allowed is not None:
            hidden = ~self.plan.allowed[:, chunk, None]
            by_reference = scores.unflatten(1, (-1, self.plan.geometry.cells))
            by_reference.masked_fill_(hidden, float("-inf"))
        return scores

    def normaliser(self) -> Tensor:
        """log sum exp of each query's scores; plus infinity where it sees nothing: weights 0."""
        log_sum = self.rows.new_full((len(self.plan.queries),), float("-inf"))
        spare = self.budget
        for chunk in self.chunks:
            scores = self.scores(chunk)
            log_sum = torch.logaddexp(log_sum, scores.logsumexp(dim=1))
            spare -= scores.numel() * scores.element_size()
            if spare >= 0:
                self.kept[chunk.start] = scores
        log_sum[-1] = float("inf")
        return log_sum.masked_fill(log_sum == float("-inf"), float("inf"))

    def weights(self, chunk: slice, log_sum: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax weights and the scores they come from, (Q + 1, L) each."""
        scores = self.kept.pop(chunk.start, None)
        scores = self.scores(chunk) if scores is None else scores
        return (scores - log_sum[:, None]).exp_(), scores
