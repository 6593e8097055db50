"""TensorRT 10 and 11 from one code base: engines for NVIDIA GPUs.

TensorRT and the packages of CUDA are imported when a function needs them, never with a module. What a major can do is
asked of its names (`library`), enum values are never written as numbers, and an engine is loaded only where its sidecar
says that it belongs (`machine`).
"""
