// Checks of the plugins of instance models; wrong answers are counted in held_plugin.h.
#pragma once

void check_roi_align();
void check_nms();
void check_sample_rois();
