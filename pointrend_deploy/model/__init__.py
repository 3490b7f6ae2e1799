"""The PyTorch reference models, faithful to detectron2."""
