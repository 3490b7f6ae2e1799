"""What scripts/gpu_check.sh runs: the kernels and engines on this machine's GPU, as JSON."""
