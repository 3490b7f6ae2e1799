"""Engines: NVIDIA's builders over a bundle's graphs, and what came out of them. No torch."""
