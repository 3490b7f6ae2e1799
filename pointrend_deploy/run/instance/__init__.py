"""Running an instance bundle: boxes, classes and masks at the size of each picture."""
