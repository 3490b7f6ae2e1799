"""Instance bundles: boxes, masks and average precision beside PyTorch."""
