"""`calibrate`: the ranges of activations that INT8 needs, observed over pictures."""
