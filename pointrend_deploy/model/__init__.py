"""The PyTorch reference, faithful to detectron2, and the checkpoints it reads."""
