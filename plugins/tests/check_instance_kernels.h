// The kernels of instance models against plain loops.
#pragma once

bool pooling_agrees();
bool suppression_agrees();
