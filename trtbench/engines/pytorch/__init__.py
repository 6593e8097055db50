"""PyTorch, the baseline every engine is compared with; its engine file is the checkpoint."""
