"""Completing a video with a trained model: `Inpainter.load(...).inpaint(frames, masks)`.

Shapes: T frames of a clip, H and W its size, any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from cssta.checkpoint import Model, load_model, pick_device
from cssta.completion import complete_clip
from cssta.propagation import Propagation
from cssta.references import ReferencePlan
from cssta.region import Region, crop_region, hole_box
from cssta.stream import Pair, Reference
from cssta.texture import Texture, TexturePainter

__all__ = ["Inpainter", "Progress", "Region", "check_clip", "crop_region"]

Progress = Callable[[int, int], None]
PROPAGATION, TEXTURE = Propagation(), Texture()
READ_AHEAD = 8


class Inpainter:
    """A model on a device, ready to complete videos of any size and length.

    Attributes:
        plan: which references a frame borrows from.
        propagation: brings along what other frames see before the networks complete what none
            sees; None: the networks do everything, as in the paper.
        texture: painted over the networks' result where no frame sees; None: it stays as it is.
        batch: frames that are completed together; None: as many as size and memory suggest.
        read_ahead: frames by which propagation, in a thread of its own, may be ahead of the
            networks; 0: it takes turns with them. A GPU leaves the CPU free for it.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        plan: ReferencePlan | None = None,
        temporal: bool | None = None,
        propagation: Propagation | None = None,
        texture: Texture | None = None,
    ) -> None:
        """`temporal`: run the temporal network; None: where the model has one and recommends it.

        Raises ValueError if it is asked for and the model has none.
        """
        self.device = device
        self.plan = plan or ReferencePlan()
        self.propagation = propagation
        self.texture = texture
        self.batch: int | None = None
        self.read_ahead = READ_AHEAD if device.type == "cuda" else 0
        layout = torch.channels_last
        self.network = model.inpainter.to(device, memory_format=layout).eval()
        if temporal and model.temporal is None:
            raise ValueError("the model has no temporal network; train one, or leave temporal out")
        self.temporal = None
        if model.temporal is not None and (model.use_temporal if temporal is None else temporal):
            self.temporal = model.temporal.to(device, memory_format=layout).eval()
        # A CPU's bfloat16 matrix unit makes unfolded patches the faster way to the same result.
        # (Older PyTorch cannot be asked.)
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        matrix_unit = device.type == "cpu" and capabilities.get("amx_bf16", False)
        self.mixed_precision = device.type == "cuda" or matrix_unit
        self.network.refinement.attention.unfold = matrix_unit

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        device: str | torch.device | None = None,
        temporal: bool | None = None,
        propagation: Propagation | None = PROPAGATION,
        texture: Texture | None = TEXTURE,
    ) -> Inpainter:
        """Load a model folder, or the default weights for None; the first GPU if there is one.

        `temporal`, `propagation` and `texture` as for the class, but the last two are on: with
        None for both the networks do everything, as in the paper.
        Raises CheckpointError when the folder is not a usable model.
        """
        model = load_model(source)
        return cls(
            model, pick_device(device), temporal=temporal, propagation=propagation, texture=texture
        )

    def inpaint(
        self, frames: np.ndarray, masks: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Complete the holes of a clip.

        Args:
            frames: uint8 or uint16 (T, H, W, 3) RGB, T >= 1.
            masks: bool (T, H, W), True = hole. Whatever the frames hold there is ignored.
            progress: called with (frames completed, frames to complete) as they are done.

        Returns:
            Like `frames`, and equal to them bit for bit wherever the mask is False.

        Raises:
            ValueError: types or shapes are not as above.
        """
        check_clip(frames, masks)
        total, completed = int(masks.any(axis=(1, 2)).sum()), 0
        box = hole_box(masks)
        results = self.stream(
            zip(frames, masks, strict=True),
            references=((i, frames[i], masks[i]) for i in self.plan.spread(len(frames))),
            region=box and crop_region(box, *frames.shape[1:3]),
        )
        result = np.empty(frames.shape, frames.dtype)
        for index, frame in enumerate(results):
            result[index] = frame
            if masks[index].any():
                completed += 1
                if progress is not None:
                    progress(completed, total)
        return result

    @torch.inference_mode()
    def stream(
        self,
        pairs: Iterable[Pair],
        *,
        references: Iterable[Reference] | None = None,
        start: int = 0,
        region: Region | None = None,
        lead: int = 0,
        painter: TexturePainter | None = None,
    ) -> Iterator[np.ndarray]:
        """Complete the holes of a clip of any length in constant memory, one scene at a time.

        Args:
            pairs: frames uint8 or uint16 (H, W, 3) RGB and masks bool (H, W), True = hole; each an
                array of its own. Read `lookahead` frames ahead of what is yielded, and a few more
                (in another thread, with `read_ahead`).
            references: (number, frame, mask) of frames from all over the scene, for all targets to
                borrow from; encoded when the first hole is seen. None: gathered on the way, from
                what has passed and a few frames ahead.
            start: the first pair's number, as `references` are numbered.
            region: what is completed, a box (y0, y1, x0, x1) that holds all holes and their
                surroundings (see `crop_region`); None: the whole frame.
            lead: the first pairs that only lend what they see; nothing is yielded for them.
            painter: of the part of the scene before, to go on with its texture.

        Yields:
            A frame for every other pair, in order: the same but for the hole, never the same
            array.

        Raises:
            ValueError: types, shapes or the region are not as above.
        """
        yield from complete_clip(self, pairs, references, start, region, lead, painter)

    def painter(self, path: Path | None = None) -> TexturePainter | None:
        """What paints the texture of a scene, frame by frame; `path`: going on from what another
        has saved. None where there is to be no texture."""
        return self.texture and TexturePainter(self.texture, path)

    @property
    def lookahead(self) -> int:
        """Frames on either side that a result depends on, besides the far references."""
        latency = self.propagation.latency if self.propagation is not None else 0
        return latency + max(self.plan.near, default=0)

    @property
    def half(self) -> torch.dtype:
        """The type of remembered features."""
        return torch.bfloat16 if self.mixed_precision else torch.float16

    def autocast(self) -> torch.autocast:
        """The precision that the networks run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision)


def check_clip(frames: np.ndarray, masks: np.ndarray) -> None:
    """Raise ValueError unless frames are uint8 or uint16 (T, H, W, 3), masks bool (T, H, W)."""
    if not isinstance(frames, np.ndarray) or frames.dtype not in (np.uint8, np.uint16):
        kind = getattr(frames, "dtype", type(frames))
        raise ValueError(f"frames must be a uint8 or uint16 array, not {kind}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be (T, H, W, 3) with T, H, W >= 1, not {frames.shape}")
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_:
        raise ValueError(f"masks must be a bool array, not {getattr(masks, 'dtype', type(masks))}")
    if masks.shape != frames.shape[:3]:
        raise ValueError(
            f"masks must be {frames.shape[:3]}, one per frame and of its size, not {masks.shape}"
        )
