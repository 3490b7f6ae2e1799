"""Reports of comparisons: HTML and Markdown from the record, and lines for the terminal."""
