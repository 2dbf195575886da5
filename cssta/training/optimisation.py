"""Optimiser steps that cannot poison the weights, and the average of the weights over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class DivergedError(RuntimeError):
    """Losses or gradients were not finite for too many steps in a row."""


@dataclass(frozen=True)
class Settings:
    """How a stage trains; the defaults are the paper's where it says (Sec. 3.2).

    Attributes:
        learning_rate: Adam's; multiplied by `decay` every `decay_every_epochs` epochs.
        gradient_clip: largest gradient norm.
        ema: decay of the weight average that is validated and exported; 0 switches it off.
        targets: target frames per clip, each the others' reference; None: all of the clip's frames.
        reference_dropout: share of steps in which targets keep half of their references or none.
        max_bad_steps: consecutive non-finite steps that are skipped before training stops.
        mixed_precision: bfloat16 autocast; None: on CUDA only.
        unfold: attention by unfolded patches (see `cssta.unfold_attention`); the same result,
            faster on CPUs with a bfloat16 matrix unit.
        checkpointing: compute the inpainter's activations again for the backward pass instead of
            remembering them: less memory, more time, the same result.
        entropy_every: steps between measurements of the attention's entropy; 0: none.
    """

    learning_rate: float = 1e-4
    decay: float = 0.9
    decay_every_epochs: int = 10
    gradient_clip: float = 10.0
    ema: float = 0.999
    targets: int | None = None
    reference_dropout: float = 0.2
    max_bad_steps: int = 20
    mixed_precision: bool | None = None
    unfold: bool = False
    checkpointing: bool = False
    entropy_every: int = 50


class Optimiser:
    """Adam with clipping, the paper's schedule and a guard against non-finite steps."""

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.network = network
        self.settings = settings
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(parameters, settings.learning_rate, betas=(0.5, 0.99))
        self.schedule = torch.optim.lr_scheduler.StepLR(
            self.adam, settings.decay_every_epochs, settings.decay
        )
        self.skipped = 0
        self.bad_in_a_row = 0

    def minimise(self, loss: Tensor) -> bool:
        """One step; False if it was skipped because loss or gradient was not finite.

        Raises DivergedError after `max_bad_steps` skipped in a row.
        """
        self.adam.zero_grad(set_to_none=True)
        # A loss that is not finite makes the gradients so, on all workers alike: where one skips
        # a step, the others must too.
        loss.backward(torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan).to(loss))
        parameters = [p for group in self.adam.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        if torch.isfinite(norm):
            self.adam.step()
            self.bad_in_a_row = 0
            return True
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row > self.settings.max_bad_steps:
            raise DivergedError(
                f"{self.bad_in_a_row} steps in a row had a non-finite loss or gradient; lower the "
                f"learning rate ({self.settings.learning_rate}) or look at the data"
            )
        return False

    @property
    def learning_rate(self) -> float:
        return self.adam.param_groups[0]["lr"]

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """All that `restore` needs: what JSON can hold, and Adam's tensors as "parameter.name"."""
        adam = self.adam.state_dict()
        tensors = {
            f"{index}.{name}": value
            for index, values in adam["state"].items()
            for name, value in values.items()
        }
        document = {
            "adam": adam["param_groups"],
            "schedule": self.schedule.state_dict(),
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
        }
        return document, tensors

    def restore(self, document: dict, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, possibly by way of JSON.

        Raises ValueError or KeyError for the state of another network.
        """
        parameters = [p for group in self.adam.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split(".")
            parameter = parameters[int(index)]
            if name != "step":
                if value.shape != parameter.shape:
                    raise ValueError(f"{key} is {tuple(value.shape)}, not {tuple(parameter.shape)}")
                # In the parameter's memory layout, as Adam makes them.
                value = torch.empty_like(parameter).copy_(value)
            moments.setdefault(int(index), {})[name] = value
        groups = [{**group, "betas": tuple(group["betas"])} for group in document["adam"]]
        self.adam.load_state_dict({"state": moments, "param_groups": groups})
        self.schedule.load_state_dict(document["schedule"])
        self.skipped = document["skipped"]
        self.bad_in_a_row = document["bad_in_a_row"]


def averaged(network: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of `network`'s weights (None for decay 0)."""
    if not decay:
        return None
    # Early on the average follows closely, or it would remember the random start for long.
    steps = {"done": 0}
    plain = get_ema_multi_avg_fn(decay)

    def average(averages, current, count):
        steps["done"] = int(count)
        warm = min(decay, (1 + steps["done"]) / (10 + steps["done"]))
        (plain if warm == decay else get_ema_multi_avg_fn(warm))(averages, current, count)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=False)


Wrap = Callable[[nn.Module], nn.Module]
