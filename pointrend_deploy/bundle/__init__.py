"""A bundle: the folder that holds a deployed model, and the manifest that describes it."""
