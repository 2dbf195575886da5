from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from cssta.training.optimisation import DivergedError, Optimiser, Settings, averaged


def one_weight(value: float = 1.0) -> nn.Module:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def test_the_papers_schedule():
    settings = Settings()
    assert (settings.learning_rate, settings.decay, settings.decay_every_epochs) == (1e-4, 0.9, 10)
    optimiser = Optimiser(one_weight(), settings)
    rates = []
    for _ in range(21):
        rates.append(optimiser.learning_rate)
        optimiser.minimise(optimiser.network.weight.sum())
        optimiser.schedule.step()
    assert rates[:10] == [1e-4] * 10
    assert rates[10:20] == pytest.approx([0.9e-4] * 10)
    assert rates[20] == pytest.approx(0.81e-4)


def test_minimises():
    optimiser = Optimiser(one_weight(), Settings(learning_rate=0.1))
    for _ in range(60):
        assert optimiser.minimise((optimiser.network.weight - 3).square().sum())
    assert optimiser.network.weight.item() == pytest.approx(3, abs=0.2)
    assert optimiser.skipped == 0


@pytest.mark.parametrize("bad", ["nan loss", "inf loss", "nan gradient"])
def test_a_step_that_is_not_finite_is_skipped(bad):
    optimiser = Optimiser(one_weight(), Settings())
    weight = optimiser.network.weight
    optimiser.minimise(weight.sum())
    before, moments = weight.clone(), optimiser.adam.state[weight]["exp_avg"].clone()
    if bad == "nan gradient":
        loss = torch.sqrt(weight.sum() * 0)  # 0, with an infinite slope times 0
        assert torch.isfinite(loss)
    else:
        loss = weight.sum() * float(bad.split()[0])
    assert not optimiser.minimise(loss)
    assert torch.equal(weight, before)
    assert torch.equal(optimiser.adam.state[weight]["exp_avg"], moments)
    assert optimiser.skipped == 1
    assert optimiser.minimise(weight.sum())
    assert not torch.equal(weight, before)


def test_too_many_in_a_row_is_divergence():
    optimiser = Optimiser(one_weight(), Settings(max_bad_steps=3))
    weight = optimiser.network.weight
    for _ in range(2):
        for _ in range(3):
            assert not optimiser.minimise(weight.sum() * float("nan"))
        assert optimiser.minimise(weight.sum())  # starts the count again
    for _ in range(3):
        optimiser.minimise(weight.sum() * float("nan"))
    with pytest.raises(DivergedError, match=r"4 steps.*learning rate"):
        optimiser.minimise(weight.sum() * float("nan"))
    assert torch.isfinite(weight).all()
    assert optimiser.skipped == 10


def test_a_loss_without_bounds_but_with_a_gradient_is_skipped_by_way_of_the_gradient():
    """So that workers whose own loss was finite, and who share gradients, skip the step too."""
    optimiser = Optimiser(one_weight(), Settings())
    weight = optimiser.network.weight
    loss = weight.sum() + float("inf")
    assert not optimiser.minimise(loss)
    assert weight.grad.isnan().all()


def test_gradients_are_clipped():
    optimiser = Optimiser(one_weight(), Settings(gradient_clip=2.0))
    optimiser.minimise(1e4 * optimiser.network.weight.sum())
    assert optimiser.network.weight.grad.norm().item() == pytest.approx(2, rel=1e-4)


def test_state_goes_on_where_it_was():
    optimisers = [Optimiser(one_weight(), Settings(learning_rate=0.1)) for _ in range(2)]
    first, second = optimisers
    for _ in range(4):
        first.minimise(first.network.weight.square().sum())
        first.schedule.step()
    first.minimise(first.network.weight.sum() * float("inf"))
    second.network.load_state_dict(first.network.state_dict())
    document, tensors = first.state()
    tensors = {key: value.clone() for key, value in tensors.items()}
    second.restore(json.loads(json.dumps(document)), tensors)
    assert second.skipped == second.bad_in_a_row == 1
    for _ in range(10):
        for optimiser in optimisers:
            optimiser.minimise(optimiser.network.weight.square().sum())
            optimiser.schedule.step()
    assert torch.equal(first.network.weight, second.network.weight)
    assert first.learning_rate == second.learning_rate == pytest.approx(0.09)


def test_another_networks_state_is_refused():
    first, second = (Optimiser(nn.Linear(width, 1), Settings()) for width in (2, 3))
    first.minimise(first.network.weight.sum())
    with pytest.raises(ValueError, match=r"0\.exp_avg is \(1, 2\), not \(1, 3\)"):
        second.restore(*first.state())


def test_the_average_lags_and_forgets_its_start():
    network = one_weight(0.0)
    average = averaged(network, 0.99)
    average.update_parameters(network)
    nn.init.ones_(network.weight)
    values = []
    for _ in range(200):
        average.update_parameters(network)
        values.append(average.module.weight.item())
    assert values == sorted(values)
    assert 0 < values[0] < 1
    # With a plain decay of 0.99, 87 % would be left of the random start after 14 steps.
    assert values[13] > 0.9
    assert values[-1] > 0.99


def test_the_average_ends_at_its_decay():
    network = one_weight(0.0)
    average = averaged(network, 0.5)
    for _ in range(20):
        average.update_parameters(network)
    nn.init.ones_(network.weight)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.5)


def test_no_average_if_not_wanted():
    assert averaged(one_weight(), 0) is None
