"""`quantize`: the FP16 and INT8 graphs of a bundle, and what each block costs in INT8."""
