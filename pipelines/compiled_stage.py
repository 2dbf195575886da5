"""A stage's convolutional networks through torch.compile, where that pays: on CUDA.

Encoders, decoders, discriminator and temporal network see the same shapes in every step. Attention
and the smooth first guess, whose work depends on how many pixels are hole, stay as they are: the
compiler would start again with every mask.
"""

from __future__ import annotations

import logging

from torch import nn

from cssta.backbone import Decoder, Encoder
from cssta.discriminator import Discriminator
from cssta.temporal import TemporalNetwork
from cssta.training import Stage

logger = logging.getLogger(__name__)

PARTS = (Encoder, Decoder, Discriminator, TemporalNetwork)


def compile_stage(stage: Stage, backend: str = "inductor") -> int:
    """Compile the parts of the networks that `stage` trains or builds on, in place; their number.

    They compile when they are first run. Weights keep their names, and checkpoints their form. With
    the default backend nothing is compiled on a CPU, which is said.
    """
    if backend == "inductor" and stage.device.type != "cuda":
        logger.warning("stage %s: compile is for CUDA; on a CPU it is left out", stage.name)
        return 0
    networks = (
        *(stage.network, stage.discriminator),
        *(getattr(stage, frozen, None) for frozen in ("teacher", "inpainter")),
    )
    parts = [
        part
        for network in networks
        if isinstance(network, nn.Module)
        for part in network.modules()
        if isinstance(part, PARTS)
    ]
    for part in parts:
        part.compile(backend=backend)
    return len(parts)
