"""The whole network as one model of Triton's Python backend: pixels or bytes of image files in, its outputs out."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np


class TritonPythonModel:
    """The bundle around this repository, served; requests that come together run together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine of the bundle."""
        bundle = Path(args["model_repository"]).resolve().parents[2]
        sys.path.insert(0, str(bundle))
        predict = importlib.import_module("predict")  # of the bundle
        self._classifier = predict.Classifier(bundle)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that cannot be read fails alone."""
        import triton_python_backend_utils as pb

        read: list[Any] = [self._read(request, pb) for request in requests]
        good = [pixels for pixels in read if isinstance(pixels, np.ndarray)]
        found = self._outputs(np.concatenate(good)) if good else {}
        answers = []
        for pixels in read:
            if isinstance(pixels, np.ndarray):
                own = {name: values[: len(pixels)] for name, values in found.items()}
                found = {name: values[len(pixels) :] for name, values in found.items()}
                answers.append(pb.InferenceResponse([pb.Tensor(name, values) for name, values in own.items()]))
            else:
                answers.append(pb.InferenceResponse(error=pb.TritonError(pixels)))
        return answers

    def _read(self, request: Any, pb: Any) -> np.ndarray | str:
        """Return uint8 pixels (N, C, H, W), or why there are none."""
        pixels = pb.get_input_tensor_by_name(request, "PIXELS")
        if pixels is not None:
            return np.ascontiguousarray(pixels.as_numpy().transpose(0, 3, 1, 2))
        files = pb.get_input_tensor_by_name(request, "IMAGE")
        if files is None:
            return "expected an input PIXELS or IMAGE, got neither"
        try:
            return np.stack([self._classifier.decode(io.BytesIO(one)) for one in files.as_numpy().ravel()])
        except (OSError, ValueError, SyntaxError, SystemExit) as error:
            return f"expected the bytes of 8-bit image files, got {error}"

    def _outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Run the engine, at the number of images that came where it takes any, else as it was built."""
        bundle = self._classifier.bundle
        batch = len(pixels) if bundle["backend"] == "onnxruntime-cpu" or bundle["profile"] else None
        if bundle["outputs"]:
            found: dict[str, np.ndarray] = self._classifier.outputs(pixels, batch)
            return found
        return {"LOGITS": self._classifier.logits(pixels, batch)}
