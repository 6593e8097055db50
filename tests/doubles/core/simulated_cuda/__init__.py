"""A GPU that is not there: memory with real addresses, streams that run late, graphs, and kernels compiled for the CPU.

`cupy`, `pycuda` and `tensorrt` of the doubles stand on it. Work given to a stream is only done when something waits for
it, so that a forgotten wait shows as wrong numbers.
"""
