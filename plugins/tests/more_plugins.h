// Checks of plugins in files of their own; wrong answers are counted in held_plugin.h.
#pragma once

void check_roi_align();
void check_nms();
void check_refine();
void check_sample_cells();
void check_sample_rois();
void check_upsample();
