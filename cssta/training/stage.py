"""What all three training stages share: networks, optimisers, averages, state and precision."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cssta.checkpoint import (
    CheckpointError,
    load_network,
    load_tensors,
    save_network,
    save_tensors,
)
from cssta.config import ModelConfig
from cssta.discriminator import Discriminator
from cssta.losses import LossWeights, discriminator_loss, generator_loss
from cssta.training.batches import to_network
from cssta.training.optimisation import Optimiser, Settings, Wrap, averaged

# What of a stage's state is no tensor; the last file of a save.
STATE = "state.json"


class Stage(ABC):
    """One training stage over any iterator of batches; knows nothing of where they come from.

    A batch is `{"frames": uint8 (B, T, H, W, 3), "masks": bool (B, T, H, W)}`, the frames of a clip
    in order. Subclasses set `name` and say what one step does.
    """

    name: str

    def __init__(
        self,
        config: ModelConfig,
        network: nn.Module,
        settings: Settings,
        losses: LossWeights,
        device: torch.device,
        wrap: Wrap = lambda network: network,
        adversarial: bool = True,
    ) -> None:
        """`wrap` makes a network distributed; it is called once per trained network."""
        self.config, self.settings, self.losses, self.device = config, settings, losses, device
        self.network = network.to(device, memory_format=torch.channels_last)
        self.network.train().requires_grad_(True)
        self.distributed = wrap(self.network)
        self.optimiser = Optimiser(self.network, settings)
        self.average = averaged(self.network, settings.ema)
        self.discriminator: nn.Module | None = None
        if adversarial:
            self.discriminator = Discriminator(config).to(device)
            self.distributed_discriminator = wrap(self.discriminator)
            self.discriminator_optimiser = Optimiser(self.discriminator, settings)
        self.steps = 0

    @abstractmethod
    def step(self, batch: dict) -> dict[str, float]:
        """Train on one batch; returns the losses and what else is worth plotting."""

    @abstractmethod
    def complete(self, batch: dict) -> tuple[np.ndarray, np.ndarray]:
        """Result and truth, uint8 (N, H, W, 3) each, by the averaged weights; for validation."""

    def network_inputs(self, batch: dict) -> tuple[Tensor, Tensor]:
        return to_network(batch, self.device)

    def autocast(self) -> torch.autocast:
        on = self.settings.mixed_precision
        on = self.device.type == "cuda" if on is None else on
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def train_discriminator(self, real: Tensor, fake: Tensor, masks: Tensor) -> dict[str, float]:
        """Eq. 5 on frames (N, 3, H, W); one call over both keeps a distributed step to one pass."""
        count = len(real)
        scores = self.distributed_discriminator(
            torch.cat([real, fake.detach()]), torch.cat([masks, masks])
        ).float()
        loss = discriminator_loss(scores[:count], scores[count:]) / count
        self.discriminator_optimiser.minimise(loss)
        return {
            "loss_discriminator": loss.item(),
            "score_real": scores[:count].mean().item(),
            "score_fake": scores[count:].mean().item(),
        }

    def adversarial_loss(self, fake: Tensor, masks: Tensor) -> Tensor:
        """Eq. 6, the gradient reaching only the generator."""
        self.discriminator.requires_grad_(False)
        scores = self.discriminator(fake, masks).float()
        self.discriminator.requires_grad_(True)
        return generator_loss(scores)

    def finish_step(self, loss: Tensor) -> None:
        """Generator update, average and count."""
        if self.optimiser.minimise(loss) and self.average is not None:
            self.average.update_parameters(self.network)
        self.steps += 1

    def end_epoch(self) -> None:
        """Advance the learning-rate schedule."""
        self.optimiser.schedule.step()
        if self.discriminator is not None:
            self.discriminator_optimiser.schedule.step()

    @property
    def skipped(self) -> int:
        """Updates left out because loss or gradient was not finite, the discriminator's too."""
        return sum(optimiser.skipped for optimiser in self._optimisers().values())

    @property
    def exported(self) -> nn.Module:
        """The network to validate and to ship: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def save(self, folder: Path) -> None:
        """Write everything needed to go on: tensors as safetensors, the rest as JSON.

        state.json comes last: a folder that has it is whole.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in self._networks().items():
            save_network(folder / f"{name}.safetensors", network)
        tensors, documents = {"random": torch.get_rng_state()}, {}
        for name, optimiser in self._optimisers().items():
            documents[name], own = optimiser.state()
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
        save_tensors(folder / "state.safetensors", tensors)
        document = {
            "steps": self.steps,
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "optimisers": documents,
        }
        (folder / STATE).write_text(json.dumps(document, indent=1))

    def restore(self, folder: Path) -> None:
        """Go on from `save`'s folder; CheckpointError where it is not whole or not this stage's."""
        for name, network in self._networks().items():
            loaded = load_network(folder / f"{name}.safetensors", partial(deepcopy, network))
            network.load_state_dict(loaded.state_dict())
        tensors = load_tensors(folder / "state.safetensors")
        try:
            document = json.loads((folder / STATE).read_text())
            self.steps = document["steps"]
            torch.set_rng_state(tensors["random"])
            for name, optimiser in self._optimisers().items():
                own = {
                    key.removeprefix(f"{name}."): value
                    for key, value in tensors.items()
                    if key.startswith(f"{name}.")
                }
                optimiser.restore(document["optimisers"][name], own)
            if self.average is not None:
                self.average.n_averaged.fill_(document["averaged"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                f"{folder / STATE}: not this stage's state ({error!r}); "
                f"go on from another checkpoint or train anew"
            ) from error

    def _networks(self) -> dict[str, nn.Module]:
        networks = {"network": self.network, "discriminator": self.discriminator}
        if self.average is not None:
            networks["average"] = self.average.module
        return {name: network for name, network in networks.items() if network is not None}

    def _optimisers(self) -> dict[str, Optimiser]:
        optimisers = {"network": self.optimiser}
        if self.discriminator is not None:
            optimisers["discriminator"] = self.discriminator_optimiser
        return optimisers
