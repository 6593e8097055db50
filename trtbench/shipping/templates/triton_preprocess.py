"""The first step of the ensemble: pixels or the bytes of image files to the network's input."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FRAMING = ("size", "crop_ratio", "interpolation", "antialias", "exif_rotation")


class TritonPythonModel:
    """Resampling and normalisation, as the network was trained with."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the preprocessing off the model's configuration."""
        told = json.loads(args["model_config"])["parameters"]["preprocessing"]["string_value"]
        self._fit: dict[str, Any] = json.loads(told)
        sys.path.insert(0, str(Path(args["model_repository"]) / args["model_version"]))
        self._pixels = importlib.import_module("pixels")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that cannot be read fails alone."""
        import triton_python_backend_utils as pb

        answers = []
        for request in requests:
            pixels = pb.get_input_tensor_by_name(request, "PIXELS")
            try:
                images = pixels.as_numpy() if pixels is not None else self._decoded(request, pb)
            except (OSError, ValueError, SyntaxError) as error:
                words = f"expected the bytes of 8-bit image files, got {error}"
                answers.append(pb.InferenceResponse(error=pb.TritonError(words)))
                continue
            planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
            inputs = self._pixels.normalised(planes, self._fit["mean"], self._fit["std"])
            answers.append(pb.InferenceResponse([pb.Tensor("INPUT", inputs)]))
        return answers

    def _decoded(self, request: Any, pb: Any) -> np.ndarray:
        """Return uint8 pixels (N, H, W, C)."""
        files = pb.get_input_tensor_by_name(request, "IMAGE")
        if files is None:
            raise ValueError("neither PIXELS nor IMAGE")
        return np.stack([self.framed(one) for one in files.as_numpy().ravel()])

    def framed(self, file: bytes) -> np.ndarray:
        """Return the bytes of an image file as uint8 (H, W, 3) of the network's size."""
        with Image.open(io.BytesIO(file)) as opened:
            found: np.ndarray = self._pixels.framed(opened, **{name: self._fit[name] for name in FRAMING})
        return found
