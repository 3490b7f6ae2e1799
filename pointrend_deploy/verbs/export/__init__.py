"""`export`: a checkpoint traced into a bundle and verified; one implementation for each task."""
