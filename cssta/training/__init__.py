"""The three training stages in plain PyTorch: any iterator of batches will do (Sec. 3.2)."""

from cssta.training.batches import to_network, to_uint8
from cssta.training.im2im_stage import Im2ImStage
from cssta.training.inpainter_stage import InpainterStage
from cssta.training.optimisation import DivergedError, Settings
from cssta.training.stage import Stage
from cssta.training.step_seed import seed_step
from cssta.training.temporal_stage import TemporalStage

__all__ = [
    "DivergedError",
    "Im2ImStage",
    "InpainterStage",
    "Settings",
    "Stage",
    "TemporalStage",
    "seed_step",
    "to_network",
    "to_uint8",
]
