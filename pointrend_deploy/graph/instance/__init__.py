"""Instance models as graphs: the detector, the masks, and their export."""
