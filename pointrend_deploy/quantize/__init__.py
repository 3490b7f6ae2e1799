"""Make FP16 and INT8 graphs from FP32 graphs: observe ranges, place precisions, rewrite."""
