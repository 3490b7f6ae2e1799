"""Checkpoints of .pkl, .pth and .safetensors files: read without running code, checked, fitted."""
