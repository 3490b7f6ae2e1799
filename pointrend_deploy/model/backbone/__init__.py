"""Backbones and the feature pyramid, with the parameter names of detectron2."""
