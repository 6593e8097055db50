"""The first step of the ensemble: pixels or the bytes of image files to the network's input."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image


class TritonPythonModel:
    """Resampling and normalisation, as the network was trained with."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the preprocessing off the model's configuration."""
        told = json.loads(args["model_config"])["parameters"]["preprocessing"]["string_value"]
        fit = json.loads(told)
        self._size: int = fit["size"]
        levels = np.arange(256) / 255
        pairs = zip(fit["mean"], fit["std"], strict=True)
        self._levels = [((levels - mean) / std).astype(np.float32) for mean, std in pairs]

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
            planes = [levels[images[..., channel]] for channel, levels in enumerate(self._levels)]
            answers.append(pb.InferenceResponse([pb.Tensor("INPUT", np.stack(planes, axis=1))]))
        return answers

    def _decoded(self, request: Any, pb: Any) -> np.ndarray:
        """Return uint8 pixels (N, H, W, C)."""
        files = pb.get_input_tensor_by_name(request, "IMAGE")
        if files is None:
            raise ValueError("neither PIXELS nor IMAGE")
        found = []
        for one in files.as_numpy().ravel():
            with Image.open(io.BytesIO(one)) as opened:
                if opened.mode.startswith(("I", "F")):
                    raise ValueError(f"mode {opened.mode}")
                rgb = (opened.convert("RGBA") if "transparency" in opened.info else opened).convert("RGB")
            size = (self._size, self._size)
            found.append(np.asarray(rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BILINEAR)))
        return np.stack(found)
