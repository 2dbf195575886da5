"""cssta: video inpainting with coherent semantic spatial-temporal attention."""

from cssta.engine import Inpainter

__version__ = "0.1.0"
__all__ = ["Inpainter", "__version__"]
