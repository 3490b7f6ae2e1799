"""Instance models: Mask R-CNN with its own mask head or with PointRend's."""
