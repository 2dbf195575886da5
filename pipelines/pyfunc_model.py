"""The registered model as MLflow runs it, logged as code: nothing is pickled."""

from __future__ import annotations

import mlflow
import numpy as np
from mlflow.models import set_model


class InpaintingModel(mlflow.pyfunc.PythonModel):
    """Completes one video per call.

    Input: frames uint8 (T, H, W, 3) RGB and masks bool (T, H, W), True where a pixel is missing.
    Output: uint8 (T, H, W, 3), equal to the input outside the masks.
    """

    def load_context(self, context) -> None:
        from cssta import Inpainter

        self._inpainter = Inpainter.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):
        frames = np.asarray(model_input["frames"], np.uint8)
        return self._inpainter.inpaint(frames, np.asarray(model_input["masks"], bool))


set_model(InpaintingModel())
