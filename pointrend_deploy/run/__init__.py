"""The device side: run a bundle on pictures. PyTorch is needed for the torch runner alone."""
