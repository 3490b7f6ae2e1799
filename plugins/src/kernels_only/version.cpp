// The version of a library of the kernels alone, which has no plugins.
#include "pointrend_plugins.h"

extern "C" int32_t pointrend_tensorrt_version(void) { return 0; }
