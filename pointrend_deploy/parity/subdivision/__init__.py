"""The subdivision of two runs compared: chosen points, their logits, and what strays can reach."""
