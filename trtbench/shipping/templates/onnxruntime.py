"""ONNX Runtime as this bundle needs it: opened as it was measured, on the kernels that are right for this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "onnxruntime-cpu": [("CPUExecutionProvider", {})],
    "onnxruntime-cuda": [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})],
    "onnxruntime-tensorrt": [
        ("TensorrtExecutionProvider", {"device_id": "0"}),
        ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}),
    ],
}
# Without one of these flags of /proc/cpuinfo, x86 adds pairs of int8 products in 16 bits, and saturates.
INT8_DOT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


def has_int8_dot(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has exact int8 dot products, as far as the system tells."""
    try:
        found = re.search(r"^(?:flags|Features)[ \t]*:(.*)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return False
    return found is not None and not INT8_DOT.isdisjoint(found.group(1).split())


class Engine:
    """The engine file, opened."""

    def __init__(self, folder: Path, bundle: dict[str, Any]) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported
        import onnxruntime as ort

        settings, backend = bundle["settings"], bundle["backend"]
        options = ort.SessionOptions()
        options.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            if backend == "onnxruntime-tensorrt"
            else ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        )
        options.intra_op_num_threads = settings.get("threads", 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.get("spin") else "0")
        if bundle["precision"] != "fp32" and backend == "onnxruntime-cpu" and not has_int8_dot():
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = PROVIDERS[backend]
        if backend != "onnxruntime-cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._session = ort.InferenceSession(str(folder / bundle["engine"]), options, providers=providers)
        if self._session.get_providers()[0] != providers[0][0]:
            raise RuntimeError(f"{bundle['engine']} would run on {self._session.get_providers()[0]}")
        self._input = self._session.get_inputs()[0].name
        self._outputs = [one["name"] for one in bundle["outputs"]] or None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (N, classes) of float32 images (N, C, H, W); of other outputs each flattened."""
        names = images.dtype.names  # of records of tensors
        given = {one: np.ascontiguousarray(images[one]) for one in names} if names else {self._input: images}
        found = self._session.run(self._outputs, given)
        return np.concatenate([one.reshape(len(one), -1) for one in found], axis=1)
