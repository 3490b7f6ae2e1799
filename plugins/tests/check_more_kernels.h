// Kernels that check_kernels.cpp does not check itself, against plain loops.
#pragma once

bool pooling_agrees();
bool sampling_of_rois_agrees();
bool suppression_agrees();
bool upsampling_agrees();
