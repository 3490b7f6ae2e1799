"""A pickle reader that runs nothing: the machine, its instructions, and the names it admits."""
