"""The record of comparisons, ``parity.json``: its rows, and how it is read and written."""
