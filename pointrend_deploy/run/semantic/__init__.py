"""Running a semantic bundle: label maps at the size of each picture."""
