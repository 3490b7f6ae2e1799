#!/usr/bin/env bash
# Build the plugin library for the machine this runs on, and print its path.
#
#   scripts/build_plugins.sh [OUT]        OUT is build/plugins unless given
#   scripts/build_plugins.sh --kernels [OUT]  the kernels with their C interface alone, no TensorRT headers:
#                                         OUT/libpointrend_kernels.so, OUT is build/kernels unless given
#   scripts/build_plugins.sh --headers    only print the folder of TensorRT's headers
#
# On a Jetson: its own nvcc, its own TensorRT headers, its own GPU only.
# Elsewhere: TENSORRT_INCLUDE_DIR, or headers installed with the system, or those of the PyPI package
# kernel-lens (TensorRT 10.14: enough to compile and check, and for any TensorRT 10 to load).
# TENSORRT_INCLUDE_DIR, CUDA_ARCHITECTURES (87-real;90-real) and NVCC override what is found; STRICT=ON
# makes warnings errors and shows the registers and shared memory of each kernel. DOWNLOAD=OFF fails where
# the headers would have to come from the package.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
library=pointrend_plugins
out=${1:-$root/build/plugins}
if [ "${1:-}" = --kernels ]; then
  library=pointrend_kernels
  out=${2:-$root/build/kernels}
fi

fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

find_nvcc() {
  if [ -n "${NVCC:-}" ]; then
    echo "$NVCC"
  elif command -v nvcc; then
    :
  elif [ -x /usr/local/cuda/bin/nvcc ]; then # Jetson's, not on its PATH by default
    echo /usr/local/cuda/bin/nvcc
  else
    fail "nvcc is not installed" "install the CUDA toolkit (on a Jetson: sudo apt install nvidia-jetpack) or set NVCC"
  fi
}

find_headers() {
  local folder
  for folder in "${TENSORRT_INCLUDE_DIR:-}" "/usr/include/$(uname -m)-linux-gnu" /usr/include; do
    if [ -n "$folder" ] && [ -f "$folder/NvInferRuntime.h" ]; then
      echo "$folder"
      return
    fi
    if [ -n "$folder" ] && [ "$folder" = "${TENSORRT_INCLUDE_DIR:-}" ]; then
      fail "no NvInferRuntime.h in TENSORRT_INCLUDE_DIR=$folder" "give the folder of TensorRT's headers"
    fi
  done
  if [ -e /etc/nv_tegra_release ]; then
    fail "TensorRT's headers are not installed" "sudo apt install libnvinfer-headers-dev"
  fi
  download_headers
}

download_headers() {
  local cache=$root/build/tensorrt-headers-10.14
  local folder=kernel_lens/include/tensorrt
  if [ ! -f "$cache/$folder/NvInferRuntime.h" ]; then
    if [ "${DOWNLOAD:-ON}" = OFF ]; then
      fail "no TensorRT headers on this machine, and DOWNLOAD is OFF" "set TENSORRT_INCLUDE_DIR to the folder of NvInferRuntime.h"
    fi
    local python=${PYTHON:-python3} part
    mkdir -p "$root/build"
    part=$(mktemp -d "$cache.XXXXXX")
    if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps kernel-lens==2.0.1 --dest "$part" >&2 ||
      ! "$python" -m zipfile -e "$part"/kernel_lens-2.0.1-*.whl "$part" >&2; then
      rm -rf "$part"
      fail "TensorRT's headers could not be downloaded" "set TENSORRT_INCLUDE_DIR to the folder of NvInferRuntime.h"
    fi
    mv -T "$part" "$cache" 2>/dev/null || rm -rf "$part" # another build was quicker
  fi
  echo "$cache/$folder"
}

# The GPU of a Jetson; elsewhere every one that nvcc knows of those the project names.
find_architectures() {
  if [ -n "${CUDA_ARCHITECTURES:-}" ]; then
    echo "$CUDA_ARCHITECTURES"
  elif [ -e /etc/nv_tegra_release ]; then
    case "$(tr -d '\0' </proc/device-tree/model)" in
      *Thor*) echo 110-real ;;
      *Orin*) echo 87-real ;;
      *) fail "this Jetson is neither an Orin nor a Thor" "set CUDA_ARCHITECTURES, 87-real for instance" ;;
    esac
  else
    local known number wanted=
    known=$("$1" --list-gpu-code)
    for number in 80 86 87 89 90 110 120; do
      if grep -qx "sm_$number" <<<"$known"; then
        wanted="$wanted${wanted:+;}$number-real"
      fi
    done
    echo "$wanted"
  fi
}

if [ "${1:-}" = --headers ]; then
  find_headers
  exit
fi
command -v cmake >/dev/null || fail "cmake is not installed" "sudo apt install cmake, or pip install cmake"
nvcc=$(find_nvcc)
if [ "$library" = pointrend_kernels ]; then
  headers=none
  options=(-DPOINTREND_KERNELS_ONLY=ON)
else
  headers=$(find_headers)
  options=(-DPOINTREND_KERNELS_ONLY=OFF -DTENSORRT_INCLUDE_DIR="$headers")
fi
architectures=$(find_architectures "$nvcc")
printf 'nvcc %s\nheaders %s\narchitectures %s\n' "$nvcc" "$headers" "$architectures" >&2
cmake -S "$root/plugins" -B "$out" -DCMAKE_CUDA_COMPILER="$nvcc" "${options[@]}" \
  -DCMAKE_CUDA_ARCHITECTURES="$architectures" -DPOINTREND_STRICT="${STRICT:-OFF}" >&2
cmake --build "$out" --parallel "${JOBS:-2}" >&2
echo "$out/lib$library.so"
