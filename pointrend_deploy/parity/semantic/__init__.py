"""Semantic bundles: stages, labels and scores beside PyTorch."""
