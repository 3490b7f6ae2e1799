// The kernels of instance models against plain loops.
#pragma once

bool pooling_agrees();
bool sampling_of_rois_agrees();
bool suppression_agrees();
