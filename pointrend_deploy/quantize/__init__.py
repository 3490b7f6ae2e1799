"""From the FP32 graph to FP16 and INT8 ones: what observes, what decides, what rewrites."""
