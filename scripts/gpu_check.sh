#!/usr/bin/env bash
# Check and time the kernels and engines on this machine's NVIDIA GPU, in under 9 minutes.
#
#   scripts/gpu_check.sh [--parts build,tests,...] [--minutes 9]
#
# Needs an NVIDIA GPU, nvcc, cmake, and a python3 (or PYTHON, or .venv) with torch for CUDA and this project's
# packages; downloads nothing. OUT, build/gpu_check unless set, gets gpu_check.json and a log of each part.
# Ends with 0 where every check passed, 3 where one failed, 4 where there is no GPU. docs/gpu.md says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python3
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
fi
exec "$python" -m scripts.gpu_check "$@"
