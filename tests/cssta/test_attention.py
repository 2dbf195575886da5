from __future__ import annotations

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cssta.attention import (
    CSSTALayer,
    attend_clip,
    cssta_attention,
    hole_region_attention,
    inter_frame_attention,
)
from cssta.config import ATTENTIONS
from cssta.unfold_attention import unfold_attention
from tests.cssta.oracle import oracle_attention, oracle_clip

HUGE = 2**40


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    assert result.shape == expected.shape
    assert torch.isfinite(result).all()
    if not expected.numel() or not expected.any():
        return float(result.abs().sum())
    return float((result.double() - expected).abs().max() / expected.abs().max())


def draw_mask(kind: str, height: int, width: int, rng: torch.Generator) -> torch.Tensor:
    mask = torch.zeros(height, width)
    if kind == "all":
        mask[:] = 1
    elif kind == "speckle":
        mask = (torch.rand(height, width, generator=rng) < 0.4).float()
    elif kind == "border":
        mask[0] = mask[-1] = 1
        mask[:, 0] = mask[:, -1] = 1
    elif kind == "corners":
        mask[0, 0] = mask[0, -1] = mask[-1, 0] = mask[-1, -1] = 1
    elif kind == "box":
        mask[height // 3 : height // 3 + 3, width // 2 : width // 2 + 2] = 1
    else:
        assert kind == "none"
    return mask[None]


KINDS = ["none", "all", "speckle", "border", "corners", "box"]


@st.composite
def problems(draw):
    """Target, references and their masks (float64), and a patch size."""
    batch, references = draw(st.integers(1, 3)), draw(st.integers(0, 5))
    channels = draw(st.integers(1, 5))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    target = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=rng)
    bank = torch.randn(
        batch, references, channels, height, width, dtype=torch.float64, generator=rng
    )
    if draw(st.booleans()):  # dead features, whose norm is zero
        target[..., : height // 2, :] = 0
        bank[..., :, width // 2 :] = 0
    kinds = st.sampled_from(KINDS)
    holes = [draw_mask(draw(kinds), height, width, rng) for _ in range(batch)]
    seen = [draw_mask(draw(kinds), height, width, rng) for _ in range(batch * references)]
    hidden = torch.stack(seen) if seen else torch.zeros(0, 1, height, width)
    hidden = hidden.view(batch, references, 1, height, width)
    return target, bank, torch.stack(holes).double(), hidden.double(), draw(st.sampled_from("135"))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_equals_the_definition(problem):
    *inputs, patch = problem
    expected = oracle_attention(*inputs, patch_size=int(patch))
    assert relative_error(cssta_attention(*inputs, patch_size=int(patch)), expected) < 1e-10

    rounded = [tensor.float() for tensor in inputs]
    expected = oracle_attention(*(t.double() for t in rounded), patch_size=int(patch))
    result = cssta_attention(*rounded, patch_size=int(patch))
    assert result.dtype == torch.float32
    assert relative_error(result, expected) < 1e-4


@settings(max_examples=40, deadline=None)
@given(problems())
def test_gradients_equal_those_of_the_definition(problem):
    target, bank, hole, hidden, patch = problem
    temperature = torch.tensor(7.0, dtype=torch.float64)
    weight = torch.randn(target.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    gradients = []
    for function in (cssta_attention, oracle_attention):
        leaves = [t.clone().requires_grad_() for t in (target, bank, temperature)]
        output = function(*leaves[:2], hole, hidden, patch_size=int(patch), scale=leaves[2])
        wanted = (weight * output).sum()
        gradients.append(
            torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
            if wanted.requires_grad
            else [torch.zeros_like(leaf) for leaf in leaves]
        )
    for ours, theirs in zip(*gradients, strict=True):
        # A gradient that cancels to nothing is compared with those that do not.
        size = max(theirs.abs().max().item() if theirs.numel() else 0, 1e-3)
        assert torch.isfinite(ours).all()
        assert ((ours - theirs).abs() < 1e-9 * size).all()


@st.composite
def clip_problems(draw):
    """Targets, shared references and masks (float64); how to attend, exactly and by whom."""
    count, references = draw(st.integers(1, 3)), draw(st.integers(0, 8))
    channels = draw(st.integers(1, 5))
    sides = st.tuples(st.integers(1, 25), st.integers(1, 25))
    height, width = draw(st.one_of(sides, st.sampled_from([(1, 40), (40, 1), (25, 25)])))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = channels, height, width
    targets = torch.randn(count, *shape, dtype=torch.float64, generator=rng)
    bank = torch.randn(references, *shape, dtype=torch.float64, generator=rng)
    if references and draw(st.booleans()):  # a true match, whoever may look at it
        bank[draw(st.integers(0, references - 1))] = targets[0].roll(1, 1)
    kinds = st.sampled_from(KINDS)
    holes = torch.stack([draw_mask(draw(kinds), height, width, rng) for _ in range(count)])
    seen = [draw_mask(draw(kinds), height, width, rng) for _ in range(references)]
    hidden = torch.stack(seen) if seen else torch.zeros(0, 1, height, width)
    share = draw(st.sampled_from([None, 0.1, 0.5, 0.9]))
    allowed = None
    if share is not None:
        allowed = torch.rand(count, references, generator=rng) < share
    scale = draw(st.one_of(st.floats(0.01, 400), st.sampled_from([43.5, 44.0, 200.0, 400.0])))
    how = {"allowed": allowed, "patch_size": draw(st.sampled_from([1, 3, 5]))}
    # The least memory takes too many steps for large maps.
    small = count * references * (height * width) ** 2 < 60_000
    budget = 2 ** draw(st.integers(0 if small else 22, 30))
    return (targets, bank, holes.double(), hidden.double()), how, scale, budget


@pytest.mark.parametrize("unfold", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@settings(max_examples=12, deadline=None)
@given(problem=clip_problems())
def test_clips_equal_the_definition_with_gradients(dtype, tolerance, unfold, problem):
    inputs, how, scale, budget = problem
    inputs = [t.to(dtype) for t in inputs]
    # Logits of `scale` have that much more of a rounding error.
    tolerance *= max(1, scale / 20)
    weight = torch.randn(inputs[0].shape, dtype=torch.float64, generator=torch.manual_seed(0))
    function = unfold_attention if unfold else inter_frame_attention
    results = []
    for exact in (False, True):
        kind = torch.float64 if exact else dtype
        targets, bank, hole, hidden = (t.to(kind, copy=True) for t in inputs)
        temperature = torch.tensor(scale, dtype=dtype).to(kind)
        leaves = [t.requires_grad_() for t in (targets, bank, temperature)]
        if exact:
            output = oracle_clip(targets, bank, hole, hidden, scale=temperature, **how)
        else:
            inside = hole > 0.5
            output = hole_region_attention(targets, inside, scale=temperature)
            output = (
                output
                + function(targets, bank, inside, hidden, scale=temperature, budget=budget, **how)[
                    0
                ]
            )
        # Everything takes part, even where nothing is hole.
        wanted = (weight * output).sum() + sum(0 * leaf.sum() for leaf in leaves)
        gradients = torch.autograd.grad(wanted, leaves)
        results.append((output.detach(), gradients))
    (output, gradients), (expected, exact) = results
    assert output.dtype == dtype
    assert relative_error(output, expected) < tolerance
    for ours, theirs in zip(gradients, exact, strict=True):
        # A gradient that cancels to nothing is compared with those that do not, and with how
        # steep a unit vector is where the vector is short.
        norms = torch.cat([t.norm(dim=1).flatten() for t in inputs[:2]])
        size = max([1 / norms.min().item(), *(g.abs().max().item() for g in exact if g.numel())])
        assert torch.isfinite(ours).all()
        assert ((ours - theirs).abs() <= 10 * tolerance * max(1, size)).all()


def clip(
    targets=2, references=3, channels=3, height=10, width=13, seed=0, hole=0.7, hidden=0.1
) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    size = (height, width)
    return [
        torch.randn(targets, channels, *size, dtype=torch.float64, generator=rng),
        torch.randn(references, channels, *size, dtype=torch.float64, generator=rng),
        (torch.rand(targets, 1, *size, generator=rng) < hole).double(),
        (torch.rand(references, 1, *size, generator=rng) < hidden).double(),
    ]


@pytest.mark.parametrize("budget", [1, HUGE])
def test_gradcheck(budget):
    targets, references, hole, hidden = clip(1, 2, 2, 3, 4, hidden=0.05)
    leaves = [targets, references, torch.tensor(3.0, dtype=torch.float64)]

    def attend(targets, references, scale):
        return attend_clip(targets, references, hole, hidden, scale=scale, budget=budget)[0]

    assert torch.autograd.gradcheck(attend, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("budget", [1, 300_000])
def test_little_memory_gives_the_same_result_and_gradients(budget):
    inputs = clip(2, 5)
    assert inputs[2].sum() > 128, "no second block of hole pixels"
    results = []
    for size in (budget, HUGE):
        leaves = [t.clone().requires_grad_() for t in inputs[:2]]
        scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
        output, _ = attend_clip(*leaves, *inputs[2:], scale=scale, budget=size)
        (output**3).sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves), scale.grad])
    for little, much in zip(*results, strict=True):
        assert relative_error(little.detach(), much.detach()) < 1e-12


def test_targets_of_a_clip_share_references():
    targets, references, hole, hidden = clip(3, 4)
    together, _ = attend_clip(targets, references, hole, hidden, scale=10.0)
    bank = references.expand(3, -1, -1, -1, -1)
    alone = oracle_attention(targets, bank, hole, hidden.expand(3, -1, -1, -1, -1))
    assert relative_error(together, alone) < 1e-10


@pytest.mark.parametrize("budget", [1, HUGE])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_order_of_references_does_not_matter(dtype, tolerance, budget):
    targets, references, hole, hidden = (t.to(dtype) for t in clip(1, 6))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    one, _ = attend_clip(targets, references, hole, hidden, scale=20.0, budget=budget)
    two, _ = attend_clip(targets, references[order], hole, hidden[order], scale=20.0, budget=budget)
    assert relative_error(one, two.double()) < tolerance


@pytest.mark.parametrize("budget", [1, HUGE])
def test_a_reference_that_is_not_allowed_might_as_well_be_missing(budget):
    targets, references, hole, hidden = clip(3, 4)
    allowed = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    leaf = references.clone().requires_grad_()
    result, _ = attend_clip(targets, leaf, hole, hidden, scale=10.0, allowed=allowed, budget=budget)
    for t, row in enumerate(allowed):
        expected = oracle_attention(
            targets[t : t + 1], references[row][None], hole[t : t + 1], hidden[row][None]
        )
        assert relative_error(result[t : t + 1].detach(), expected) < 1e-10
    (gradient,) = torch.autograd.grad(result[[0, 2]].sum(), leaf)
    assert gradient[[0, 2]].any()
    assert not gradient[[1, 3]].any()


@pytest.mark.parametrize("unfold", [False, True])
@pytest.mark.parametrize("scale", [40.0, 200.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_forbidden_reference_hides_no_other_however_well_it_matches(dtype, scale, unfold):
    targets, references, hole, hidden = (t.to(dtype) for t in clip(2, 3, height=6, width=7))
    references[0] = targets[0]
    hidden[0] = 0
    layer = CSSTALayer(scale).to(dtype)
    layer.unfold = unfold
    temperature = layer.log_scale.detach().double().exp()
    allowed = torch.tensor([[0, 1, 1], [0, 0, 0]]).bool()
    weight = torch.randn(targets.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    results = []
    for exact in (False, True):
        kind = torch.float64 if exact else dtype
        leaves = [t.to(kind).requires_grad_() for t in (targets.clone(), references.clone())]
        masks = hole.to(kind), hidden.to(kind)
        if exact:
            output = oracle_clip(*leaves, *masks, scale=temperature, allowed=allowed)
        else:
            output, _ = layer(*leaves, *masks, allowed)
        gradients = torch.autograd.grad((weight * output).sum(), leaves)
        results.append([output.detach(), *gradients])
    # A logit of a thousand is known to about 1e-4 in single precision.
    tolerance = 1e-6 * scale if dtype == torch.float32 else 1e-10
    for ours, expected in zip(*results, strict=True):
        assert relative_error(ours, expected) < tolerance


def test_references_wholly_hidden_give_the_hole_region_alone():
    targets, references, hole, hidden = clip(2, 3)
    result, entropy = attend_clip(
        targets, references, hole, torch.ones_like(hidden), scale=10.0, track_entropy=True
    )
    assert torch.equal(result, hole_region_attention(targets, hole > 0.5, scale=10.0))
    assert entropy.isnan(), "an entropy of nothing"


def test_what_references_hide_is_never_seen():
    targets, references, hole, hidden = clip(2, 3)
    result, _ = attend_clip(targets, references, hole, hidden, scale=10.0)
    other = torch.where(hidden > 0.5, 1e3 * torch.randn_like(references), references)
    assert torch.equal(result, attend_clip(targets, other, hole, hidden, scale=10.0)[0])


def test_zero_outside_the_hole():
    targets, references, hole, hidden = clip(2, 3, hole=0.3)
    result, _ = attend_clip(targets, references, hole, hidden, scale=10.0)
    outside = (hole < 0.5).expand_as(result)
    assert not result[outside].any()
    assert result[~outside].all()


def test_a_true_match_is_copied():
    targets, references, hole, hidden = clip(1, 3, channels=8, hole=0.0, hidden=0.0)
    hole[..., 4:7, 5:8] = 1
    references[1] = targets[0].roll((2, -3), (1, 2))
    result, _ = attend_clip(targets, references, hole, hidden, scale=1e4)
    inside = (hole > 0.5).expand_as(result)
    # Twice: the reference's pixel (eq. 1) and the block's own attention to itself (eq. 2).
    assert torch.allclose(result[inside], 2 * targets[inside])


@pytest.mark.parametrize("budget", [1, HUGE])
def test_entropy_of_a_uniform_softmax_counts_the_keys(budget):
    targets, references, hole, hidden = clip(2, 4)
    near_hole = torch.nn.functional.max_pool2d(hidden, 3, 1, 1)
    keys = int((near_hole == 0).sum())
    assert 0 < keys < hidden.numel()
    _, entropy = attend_clip(
        targets, references, hole, hidden, scale=1e-12, budget=budget, track_entropy=True
    )
    assert entropy.item() == pytest.approx(math.log(keys))


def test_entropy_of_a_decided_softmax_is_zero():
    inputs = clip(1, 3, hidden=0.0)
    inputs[1][2] = inputs[0][0]
    assert attend_clip(*inputs, scale=1e5, track_entropy=True)[1].item() == pytest.approx(0)


def test_entropy_counts_every_query_once():
    inputs = clip(2, 4)
    one, two = (
        attend_clip(*inputs, scale=10.0, budget=budget, track_entropy=True)[1].item()
        for budget in (1, HUGE)
    )
    assert one == pytest.approx(two, rel=1e-12)


@pytest.mark.parametrize("unfold", [False, True])
def test_entropy_is_of_queries_that_see_any_key(unfold):
    targets, references, hole, hidden = clip(2, 4)
    layer = CSSTALayer(10.0).double()
    layer.unfold, layer.track_entropy = unfold, True
    allowed = torch.tensor([[True] * 4, [False] * 4])
    both = layer(targets, references, hole, hidden, allowed)[1].item()
    alone = layer(targets[:1], references, hole[:1], hidden)[1].item()
    assert both == pytest.approx(alone, rel=1e-12)
    layer.track_entropy = False
    assert math.isnan(layer(targets, references, hole, hidden)[1])


@pytest.mark.parametrize("unfold", [False, True])
def test_parts_that_are_left_out(unfold):
    targets, references, hole, hidden = clip(2, 3)
    results = {}
    for parts in ATTENTIONS:
        layer = CSSTALayer(10.0, parts).double()
        layer.unfold = unfold
        results[parts] = layer(targets, references, hole, hidden)[0].detach()
        assert not results[parts][(hole < 0.5).expand_as(targets)].any()
    assert relative_error(results["inter-frame"] + results["hole-region"], results["full"]) < 1e-12
    region = hole_region_attention(targets, hole > 0.5, scale=layer.log_scale.exp().detach())
    assert relative_error(results["hole-region"], region) < 1e-12
    assert (results["none"] == targets * hole).all(), "no layer: its input passes"


def close_inside(result, expected, hole, tolerance) -> bool:
    """Root of the mean squared error in the hole, relative to the values there."""
    inside = (hole > 0.5).expand_as(expected)
    error = (result.double() - expected)[inside]
    return bool(error.square().mean() < tolerance**2 * expected[inside].square().mean())


@pytest.mark.parametrize("unfold", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [False, True])
def test_autocast_is_close(unfold, dtype, grad):
    targets, references, hole, hidden = clip(2, 3, channels=16)
    layer = CSSTALayer(10.0)
    layer.unfold = unfold
    expected, _ = attend_clip(targets, references, hole, hidden, scale=10.0)
    leaf = references.float().requires_grad_(grad)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype):
        result, _ = layer(targets.float(), leaf, hole.float(), hidden.float())
    assert close_inside(result.detach(), expected, hole, 0.02)
    if grad:
        result.float().square().sum().backward()
        exact = references.clone().requires_grad_()
        attend_clip(targets, exact, hole, hidden, scale=10.0)[0].square().sum().backward()
        assert close_inside(leaf.grad, exact.grad, torch.ones_like(hidden), 0.1)


@pytest.mark.parametrize("unfold", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e3])
def test_autocast_takes_features_of_any_size(unfold, dtype, size):
    targets, references, hole, hidden = clip(2, 3, channels=16)
    references[:2] += 4 * targets  # some matches
    targets, references = targets * size, references * size
    allowed = torch.tensor([[True, True, False], [True, False, True]])
    layer = CSSTALayer(10.0)
    layer.unfold = unfold
    weight = torch.randn(targets.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    exact = [t.clone().requires_grad_() for t in (targets, references)]
    output = oracle_clip(*exact, hole, hidden, allowed=allowed)
    expected = [output.detach(), *torch.autograd.grad((weight * output).sum(), exact)]
    leaves = [t.float().requires_grad_() for t in (targets, references)]
    with torch.autocast("cpu", dtype):
        output, _ = layer(*leaves, hole.float(), hidden.float(), allowed)
    gradients = torch.autograd.grad((weight * output).sum(), leaves)
    everywhere = torch.ones_like(hidden)
    for ours, theirs in zip([output.detach(), *gradients], expected, strict=True):
        assert close_inside(ours, theirs, everywhere[: len(ours)], 0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_close(dtype):
    inputs = clip(2, 3, channels=16)
    expected, _ = attend_clip(*inputs, scale=10.0)
    result, _ = attend_clip(*(t.to(dtype) for t in inputs), scale=10.0)
    assert result.dtype == dtype
    assert relative_error(result, expected) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_references_stored_in_half_precision_lose_only_their_rounding(dtype):
    targets, references, hole, hidden = (t.float() for t in clip(2, 5, channels=8))
    stored = references.to(dtype)
    result, _ = attend_clip(targets, stored, hole, hidden, scale=10.0)
    assert result.dtype == torch.float32
    assert torch.equal(result, attend_clip(targets, stored.float(), hole, hidden, scale=10.0)[0])


def test_references_may_be_mapped_from_a_file(tmp_path):
    targets, references, hole, hidden = (t.float() for t in clip(2, 5, channels=8))
    path = str(tmp_path / "bank")
    size = references.numel()
    mapped = torch.from_file(path, shared=True, size=size, dtype=torch.float32).view_as(references)
    mapped.copy_(references)
    result, _ = attend_clip(targets, mapped, hole, hidden, scale=10.0, budget=2**16)
    expected, _ = attend_clip(targets, references, hole, hidden, scale=10.0, budget=2**16)
    assert torch.equal(result, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("unfold", [False, True])
def test_references_may_lie_in_the_hosts_memory(unfold):
    targets, references, hole, hidden = (t.float() for t in clip(2, 5, channels=8))
    layer = CSSTALayer(10.0).cuda()
    layer.unfold = unfold
    with torch.no_grad():
        result, _ = layer(targets.cuda(), references.pin_memory(), hole.cuda(), hidden, None)
        everything = (t.cuda() for t in (targets, references, hole, hidden))
        expected, _ = layer(*everything)
    assert torch.equal(result, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_on_a_gpu_is_close(dtype):
    targets, references, hole, hidden = clip(2, 3, channels=16)
    exact = references.clone().requires_grad_()
    expected = oracle_clip(targets, exact, hole, hidden)
    expected.square().sum().backward()
    inputs = [t.float().cuda() for t in (targets, references, hole, hidden)]
    inputs = [t.contiguous(memory_format=torch.channels_last) for t in inputs]
    leaf = inputs[1].requires_grad_()
    with torch.autocast("cuda", dtype):
        result, _ = attend_clip(*inputs, scale=10.0)
    assert close_inside(result.detach().cpu(), expected.detach(), hole, 0.02)
    (gradient,) = torch.autograd.grad(result.float().square().sum(), leaf)
    assert close_inside(gradient.cpu(), exact.grad, torch.ones_like(hidden), 0.1)


@pytest.mark.parametrize("unfold", [False, True])
def test_a_compiled_layer_gives_the_same_result_and_gradients(unfold):
    inputs = clip(2, 3)
    layer = CSSTALayer(10.0).double()
    layer.unfold = unfold
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager")):
        leaf = inputs[1].clone().requires_grad_()
        output, _ = function(inputs[0], leaf, *inputs[2:])
        results.append([output.detach(), *torch.autograd.grad(output.square().sum(), leaf)])
    for ours, expected in zip(*results, strict=True):
        assert relative_error(ours, expected) < 1e-12


def test_half_precision_references_may_learn():
    targets, references, hole, hidden = (t.float() for t in clip(2, 3, channels=8))
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = references.bfloat16().to(dtype).requires_grad_()
        output, _ = attend_clip(targets, leaf, hole, hidden, scale=10.0, budget=1)
        gradients.append(torch.autograd.grad(output.square().sum(), leaf)[0])
    # Rounded once, at the end.
    assert torch.equal(gradients[1], gradients[0].bfloat16())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("budget", [1, HUGE])
def test_a_gpu_gives_the_same_result_and_gradients(budget):
    inputs = clip(2, 5)
    results = []
    for device in ("cpu", "cuda"):
        targets, references, hole, hidden = (t.to(device) for t in inputs)
        leaves = [targets.requires_grad_(), references.requires_grad_()]
        output, _ = attend_clip(*leaves, hole, hidden, scale=10.0, budget=budget)
        gradients = torch.autograd.grad(output.square().sum(), leaves)
        results.append([t.detach().cpu() for t in (output, *gradients)])
    for ours, expected in zip(results[1], results[0], strict=True):
        assert relative_error(ours, expected) < 1e-10


def test_channels_last_features():
    inputs = clip(2, 3, channels=4)
    expected, _ = attend_clip(*inputs, scale=10.0)
    turned = [t.to(memory_format=torch.channels_last) for t in inputs]
    assert relative_error(attend_clip(*turned, scale=10.0)[0], expected) < 1e-12


@pytest.mark.parametrize("unfold", [False, True])
def test_the_layer_learns_its_temperature(unfold):
    inputs = [t.float() for t in clip(2, 3, channels=4)]
    layer = CSSTALayer(24.0)
    layer.unfold = unfold
    output, _ = layer(*inputs)
    expected = attend_clip(*(t.double() for t in inputs), scale=24.0)[0]
    assert relative_error(output.detach(), expected) < 1e-4
    output.square().sum().backward()
    assert torch.isfinite(layer.log_scale.grad) and layer.log_scale.grad != 0


@pytest.mark.parametrize("unfold", [False, True])
def test_the_layer_without_references(unfold):
    targets, references, hole, hidden = clip(2, 3)
    layer = CSSTALayer(10.0).double()
    layer.unfold = unfold
    output, _ = layer(targets, references[:0], hole, hidden[:0])
    expected = hole_region_attention(targets, hole > 0.5, scale=10.0)
    assert relative_error(output.detach(), expected) < 1e-6


SHAPES = {
    "target": (2, 3, 5, 6),
    "references": (2, 4, 3, 5, 6),
    "target_mask": (2, 1, 5, 6),
    "reference_masks": (2, 4, 1, 5, 6),
}


@pytest.mark.parametrize(
    "name, shape",
    [
        ("target", (3, 5, 6)),
        ("references", (4, 3, 5, 6)),
        ("references", (1, 4, 3, 5, 6)),
        ("references", (2, 4, 2, 5, 6)),
        ("references", (2, 4, 3, 6, 5)),
        ("target_mask", (2, 5, 6)),
        ("target_mask", (2, 3, 5, 6)),
        ("target_mask", (1, 1, 5, 6)),
        ("reference_masks", (2, 4, 5, 6)),
        ("reference_masks", (2, 3, 1, 5, 6)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape):
    shapes = SHAPES | {name: shape}
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)|must have shape"):
        cssta_attention(**{key: torch.zeros(value) for key, value in shapes.items()})


def test_a_batch_of_nothing():
    empty = {key: torch.zeros(0, *shape[1:]) for key, shape in SHAPES.items()}
    assert cssta_attention(**empty).shape == (0, *SHAPES["target"][1:])


@pytest.mark.parametrize("patch_size", [0, 2, -1])
def test_patches_have_a_centre(patch_size):
    inputs = {key: torch.zeros(value) for key, value in SHAPES.items()}
    with pytest.raises(ValueError, match="patch_size must be odd"):
        cssta_attention(**inputs, patch_size=patch_size)


class PeakMemory(TorchDispatchMode):
    """Most bytes of tensors alive at once, of those made within."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)]
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage(), given)
        return result

    def _watch(self, storage, given) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or address in self.known or address in given:
            return
        self.known.add(address)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, address, size)

    def _freed(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def forward_peak(references: int, budget: int) -> int:
    targets, bank, hole, hidden = (
        t.float() for t in clip(1, references, channels=8, height=16, width=16, hole=0, hidden=0)
    )
    hole[..., 4:12, 5:13] = 1
    with torch.no_grad(), PeakMemory() as memory:
        attend_clip(targets, bank, hole, hidden, scale=10.0, budget=budget)
    return memory.peak


def test_scores_take_no_more_memory_for_more_references():
    budget = 2**20
    few, many = forward_peak(12, budget), forward_peak(72, budget)
    features = 4 * 8 * 18 * 18  # bytes of one reference, with its border
    scores = 4 * 10 * 10 * 18 * 18
    assert forward_peak(72, HUGE) > 72 * scores
    # What grows is a few numbers per reference pixel: no copy of the references is made.
    assert many - few < 60 * 0.6 * features
