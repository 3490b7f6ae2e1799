"""PointRend, from a PyTorch checkpoint to a verified deployable bundle."""
