"""Importing this makes a context of its own, beside the one CuPy and torch share: trtbench must not."""

raise ImportError("pycuda.autoinit makes a second CUDA context: retain the primary one instead")
