"""ONNX graphs: export, placement of Q/DQ pairs, their insertion, lint, and true arithmetic.

Import the modules themselves: only `export` loads torch, and worker processes without torch read the others.
"""
