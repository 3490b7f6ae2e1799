"""Two runs of one model side by side: where they differ, by how much, and what is allowed."""
