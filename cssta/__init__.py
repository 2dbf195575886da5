"""cssta: video inpainting with coherent semantic spatial-temporal attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cssta.engine import Inpainter

__version__ = "0.1.0"
__all__ = ["Inpainter", "__version__"]


def __getattr__(name: str):
    """The engine is imported when it is first asked for: who only reads videos needs no PyTorch."""
    if name == "Inpainter":
        from cssta.engine import Inpainter

        return Inpainter
    raise AttributeError(f"module 'cssta' has no attribute {name!r}")
