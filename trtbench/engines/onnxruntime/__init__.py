"""ONNX Runtime on the CPU (`cpu`), on CUDA (`cuda`) and through its TensorRT provider (`tensorrt_provider`).

Each of these modules is a runtime; `sessions` opens them, and runs a float graph for calibration. Nothing here imports
torch.
"""

from __future__ import annotations

from trtbench.engines.onnxruntime.sessions import iterate_activations as iterate_activations
