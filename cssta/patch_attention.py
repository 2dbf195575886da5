"""Patch attention from hole queries to reference keys, exact, scores in bounded memory (eq. 1).

Rows are only those query pixels that some hole pixel's patches need; columns are tiles of the
references (`cssta.reference_tiles`); see `cssta.diagonal_sum` for how patches are compared without
unfolding them.

Shapes: T target frames, R references, C channels, Q queries, P hole pixels, L columns of a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cssta.diagonal_sum import DiagonalSum, Geometry
from cssta.half_product import product
from cssta.query_plan import Plan
from cssta.reference_tiles import Group, ReferenceTiles, norm_inverse_gradient

# Bytes of a tile's matrix on a CPU; beyond its caches, and in fresh pages, every sum is slower.
CPU_TILE = 8 * 2**20
# Fewer rows than this in a block, and the ring around it is most of it.
BLOCK_ROWS = 1024


@dataclass
class Setting:
    """What all blocks of one call share."""

    positions: Tensor  # hole pixels, padded and flat over all frames, in raster order
    geometry: Geometry
    frames: int
    tiles: ReferenceTiles
    allowed: Tensor | None  # bool (T, R)
    bound: float  # no score is above it
    budget: int  # bytes for scores
    half_dtype: torch.dtype | None
    track_entropy: bool

    @property
    def tile_values(self) -> int:
        """Values of one tile's matrix; about four are alive at once."""
        size = self.tiles.dtype.itemsize
        share = self.budget // (8 * size)
        if self.positions.device.type == "cpu":
            share = min(share, max(CPU_TILE // size, BLOCK_ROWS * self._least_width))
        return max(1, share)

    @property
    def spare(self) -> int:
        """Bytes for scores kept from the first pass to the second."""
        return self.budget - 4 * self.tile_values * self.tiles.dtype.itemsize

    @property
    def _least_width(self) -> int:
        """Columns of a tile: what its patches reach beyond it is computed twice."""
        return max(512, 8 * self.tiles.halo)

    def plans(self) -> Iterator[Plan]:
        """One plan per block of hole pixels; each block computes its own ring of queries."""
        rows = self.tile_values // self._least_width
        # Fewer rows still, where their scores over all references can then be kept.
        columns = len(self.tiles.features) * self.geometry.cells
        keep = self.spare // (self.tiles.dtype.itemsize * columns)
        rows = keep if rows // 4 < keep < rows else rows
        for block in self.positions.split(max(64, rows * 2 // 3)):
            yield Plan.of(block, self.geometry, self.frames, self.allowed)


class PatchAttention(torch.autograd.Function):
    """Softmax over all references' visible patches, two passes over tiles of references.

    The first pass finds each query's normaliser, the second weighs the values. (Folding mixes
    queries: no value can be added up before its query's normaliser is known.) Scores are kept
    between the passes while they fit the budget and formed again otherwise, so memory does not
    grow with the number of references. The backward pass forms them again.
    """

    @staticmethod
    def forward(ctx, pixels, query_scale, references, setting: Setting):
        """-> (P, C) outputs at `setting.positions`, and entropies in nats by padded position.

        `pixels` (T * cells, C); `query_scale` (T * cells,) is temperature / |q|; `references`
        (R, C, H, W) are those of `setting.tiles`, for autograd to see. Entropies are nan for a
        query that sees no key; (0,) unless tracked.
        """
        outputs, ctx.normalisers = [], []
        entropies = pixels.new_full((len(pixels) if setting.track_entropy else 0,), torch.nan)
        for plan in setting.plans():
            block = _Block(pixels, query_scale, plan, setting)
            output, entropy = block.forward()
            outputs.append(output)
            ctx.normalisers.append((block.highest, block.inverse))
            if setting.track_entropy:  # by position: rings of blocks overlap
                entropies[plan.queries.positions] = entropy
        ctx.save_for_backward(pixels, query_scale, references)
        ctx.setting = setting
        ctx.mark_non_differentiable(entropies)
        return torch.cat(outputs), entropies

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output, _grad_entropies):
        pixels, query_scale, references = ctx.saved_tensors
        setting, tiles = ctx.setting, ctx.setting.tiles
        grad_pixels, grad_query_scale = torch.zeros_like(pixels), torch.zeros_like(query_scale)
        # Blocks add up in full precision.
        grad_references = None
        if ctx.needs_input_grad[2]:
            grad_references = torch.zeros_like(references, dtype=tiles.dtype)
        start = 0
        for plan, (highest, inverse) in zip(setting.plans(), ctx.normalisers, strict=True):
            block = _Block(pixels, query_scale, plan, setting)
            block.highest, block.inverse = highest, inverse
            stop = start + len(plan.pixels.positions)
            block.backward(grad_output[start:stop], grad_pixels, grad_query_scale, grad_references)
            start = stop
        if grad_references is not None:
            grad_references = grad_references.to(references.dtype)
        tiles.forget()
        return grad_pixels, grad_query_scale, grad_references, None


class _Block:
    """The scores of one block of hole pixels, tile by tile."""

    def __init__(self, pixels, query_scale, plan: Plan, setting: Setting) -> None:
        self.plan, self.setting, self.tiles = plan, setting, setting.tiles
        self.rows = F.pad(pixels[plan.patches.positions], (0, 0, 0, 1))
        self.row_scale = F.pad(query_scale[plan.queries.positions], (0, 1))
        self.sum = DiagonalSum(plan.patches, plan.queries, plan.geometry)
        self.fold = DiagonalSum(plan.queries, plan.pixels, plan.geometry)
        self.width = max(2 * self.tiles.halo + 1, setting.tile_values // len(self.rows))
        # Subtracted from the scores, so that their exponentials fit: the bound that holds for all,
        # or, where scores so far below it would vanish, each query's own highest.
        self.offset = setting.bound
        self.highest: Tensor | None = None
        if 2 * self.offset > -math.log(torch.finfo(self.rows.dtype).tiny):
            self.offset = 0.0
        self.inverse: Tensor  # (Q + 1,): 1 / sum of exponentials; 0 where nothing is seen
        self.kept: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self.spare = setting.spare

    def all_tiles(self) -> Iterator[tuple[Group, slice, slice]]:
        """Each group, a tile of its columns, and the columns that the tile's patches reach."""
        for references in self.tiles.groups:
            group = self.tiles.read(references)
            for tile in self.tiles.tiles(references, self.width):
                yield group, tile, self.tiles.around(tile, len(group.columns))

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return product(a, b, self.setting.half_dtype)

    def scores(self, group: Group, tile: slice, around: slice) -> Tensor:
        """Temperature times cosine, less the offset: (Q + 1, L').

        Minus infinity at hidden keys and at those that a query may not look at.
        """
        products = self.matmul(self.rows, group.columns[around].T)
        scores = _inwards(self.sum, products, tile, around).mul_(self.row_scale[:, None])
        bias = group.bias[tile] - self.offset
        torch.addcmul(bias, scores, group.key_scale[tile], out=scores)
        cells = self.plan.geometry.cells
        for number in range(group.references.start, group.references.stop):
            first = (number - group.references.start) * cells - tile.start
            for rows in self.plan.forbidden.get(number, ()):
                scores[rows, max(0, first) : max(0, first + cells)] = float("-inf")
        return scores

    def exponentials(self, group: Group, tile: slice, around: slice) -> Tensor:
        """exp(score - offset), zero for a key that a query may not see: (Q + 1, L')."""
        scores = self.scores(group, tile, around)
        if self.highest is not None:
            scores.sub_(self.highest[:, None])
        return scores.exp_()

    def find_highest(self) -> None:
        """Each query's highest score, 0 where it sees no key (all of its scores are infinite)."""
        highest = self.rows.new_full((len(self.row_scale),), float("-inf"))
        for group, tile, around in self.all_tiles():
            highest = torch.maximum(highest, self.scores(group, tile, around).amax(dim=1))
        self.highest = highest.masked_fill_(highest.isinf(), 0)

    def keep(self, group: Group, tile: slice, *tensors: Tensor) -> None:
        """Keep a tile's matrices for the next pass, if there is room."""
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.spare:
            self.spare -= size
            self.kept[group.references.start, tile.start] = tensors

    def recall(self, group: Group, tile: slice) -> tuple[Tensor, ...] | None:
        return self.kept.pop((group.references.start, tile.start), None)

    def forward(self) -> tuple[Tensor, Tensor]:
        """-> outputs (P, C) and entropies (Q,)."""
        if self.offset != self.setting.bound:
            self.find_highest()
        total = torch.zeros_like(self.row_scale)
        for group, tile, around in self.all_tiles():
            weights = self.exponentials(group, tile, around)
            total += weights.sum(dim=1)
            self.keep(group, tile, weights)
            del weights
        total[-1] = 0  # the absent row
        self.inverse = torch.where(total > 0, 1 / total, 0)
        output = self.rows.new_zeros(len(self.plan.pixels), self.rows.shape[1])
        entropy = torch.zeros_like(total)
        for group, tile, around in self.all_tiles():
            (weights,) = self.recall(group, tile) or (self.exponentials(group, tile, around),)
            weights.mul_(self.inverse[:, None])
            if self.setting.track_entropy:
                entropy += torch.special.entr(weights).sum(dim=1)
            folded = _outwards(self.fold, weights, tile, around)
            output += self.matmul(folded, group.columns[around])
            del weights, folded
        entropy = torch.where(self.inverse > 0, entropy, torch.nan)[:-1]
        return output[:-1] / self.plan.counts[:, None], entropy

    def backward(self, grad_output, grad_pixels, grad_query_scale, grad_references) -> None:
        """Add this block's gradients to the last three arguments."""
        plan, geometry = self.plan, self.plan.geometry
        unfold = DiagonalSum(plan.pixels, plan.queries, geometry)
        refold = DiagonalSum(plan.queries, plan.patches, geometry)
        grad_output = F.pad(grad_output / plan.counts[:, None], (0, 0, 0, 1))

        def weights_and_gradient(group, tile, around):
            weights = self.exponentials(group, tile, around).mul_(self.inverse[:, None])
            grad = self.matmul(grad_output, group.columns[around].T)
            return weights, _inwards(unfold, grad, tile, around)

        mean = torch.zeros_like(self.row_scale)
        for group, tile, around in self.all_tiles():
            weights, grad = weights_and_gradient(group, tile, around)
            mean += (weights * grad).sum(dim=1)
            self.keep(group, tile, weights, grad)
            del weights, grad
        grad_rows, grad_row_scale = torch.zeros_like(self.rows), torch.zeros_like(self.row_scale)
        # score = log(weight) + level
        level = torch.where(self.inverse > 0, -self.inverse.log(), 0) + self.offset
        level = level if self.highest is None else level + self.highest
        tiny = torch.finfo(self.rows.dtype).tiny
        for group, tile, around in self.all_tiles():
            if tile.start == 0:
                grad_columns = torch.zeros_like(group.columns)
                grad_key_scale = torch.zeros_like(group.key_scale)
            weights, grad = self.recall(group, tile) or weights_and_gradient(group, tile, around)
            if grad_references is not None:
                folded = _outwards(self.fold, weights, tile, around)
                grad_columns[around] += self.matmul(folded.T, grad_output)
                del folded
            slope = weights.clamp_min(tiny).log_().add_(level[:, None])
            grad_scores = weights.mul_(grad.sub_(mean[:, None]))
            del weights, grad
            slope.mul_(grad_scores)  # score * its gradient = scale * the scale's gradient
            grad_row_scale += slope.sum(dim=1)
            grad_key_scale[tile] += slope.sum(dim=0)
            del slope
            grad_scores.mul_(self.row_scale[:, None]).mul_(group.key_scale[tile])
            grad_products = _outwards(refold, grad_scores, tile, around)
            grad_rows += self.matmul(grad_products, group.columns[around])
            if grad_references is not None:
                grad_columns[around] += self.matmul(grad_products.T, self.rows)
            del grad_scores, grad_products
            if grad_references is not None and tile.stop == len(group.columns):
                grad_key_scale /= group.key_scale
                grad_columns += norm_inverse_gradient(grad_key_scale, group, geometry)
                maps = geometry.crop(grad_columns.unflatten(0, (-1, geometry.cells)))
                grad_references[group.references] += maps.to(grad_references.device)
        grad_row_scale = torch.where(self.row_scale == 0, 0, grad_row_scale / self.row_scale)
        grad_pixels.index_add_(0, plan.patches.positions, grad_rows[:-1])
        grad_query_scale.index_add_(0, plan.queries.positions, grad_row_scale[:-1])


def _inwards(summed: DiagonalSum, matrix: Tensor, tile: slice, around: slice) -> Tensor:
    """A matrix over all columns that a tile's patches reach, summed at the tile's."""
    return summed(matrix, tile.start - around.start, tile.stop - around.start)


def _outwards(summed: DiagonalSum, matrix: Tensor, tile: slice, around: slice) -> Tensor:
    """A tile's matrix, summed at all columns that its patches reach."""
    return summed(matrix, around.start - tile.start, around.stop - tile.start)
