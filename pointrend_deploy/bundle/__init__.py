"""A bundle: the folder of a deployed model, and the manifest that describes it."""
