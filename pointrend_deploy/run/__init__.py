"""The device side: run a bundle on pictures, without torch unless it is asked for."""
