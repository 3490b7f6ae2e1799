"""Pictures: read from files and lists, fitted to a bundle's canvas, stacked into batches."""
