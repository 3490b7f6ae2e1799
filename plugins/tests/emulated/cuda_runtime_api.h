// Stands in for CUDA's header where g++ compiles kernels for the emulator.
#pragma once
#include "../cuda_emulator.h"
