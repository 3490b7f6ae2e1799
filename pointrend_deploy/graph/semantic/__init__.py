"""The semantic model as a graph: its traceable modules and their export."""
