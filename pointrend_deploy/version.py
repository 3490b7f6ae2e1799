"""The version of the package; this module imports nothing, so that every other one can read it."""

__version__ = "0.1.0"
