"""TensorRT for RTX: engines for NVIDIA's RTX GPUs, built on machines that have none.

Parser and builder are NVIDIA's own and share their Python API with TensorRT, so all but what differs stands in
`engines/tensorrt`.
"""
