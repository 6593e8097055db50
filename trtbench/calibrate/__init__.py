"""Which images calibrate INT8, and how their activations become ranges."""
