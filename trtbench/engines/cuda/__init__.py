"""CUDA as every runtime on a GPU uses it: memory, copies, events, graphs and timed loops on one stream of ours."""
