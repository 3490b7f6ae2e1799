// What a library of the kernels alone says in the plugins' place.
#include "pointrend_plugins.h"

extern "C" int32_t pointrend_tensorrt_version(void) { return 0; }
