"""The deployable graph: exact rewrites of the reference, traced to ONNX, with custom ops."""
