"""The truth about pictures: label maps, COCO annotations and Cityscapes, read and checked."""
