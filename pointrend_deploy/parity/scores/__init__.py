"""Scores: agreement, IoU, boundary IoU and average precision."""
