"""The programs that compute a bundle's outputs: ONNX Runtime, PyTorch, TensorRT."""
