"""What trains the demonstration model: scenes with exact labels, point losses, evaluation."""
