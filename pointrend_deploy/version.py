"""The package's version, where no other module of it is imported to read it."""

__version__ = "0.1.0"
