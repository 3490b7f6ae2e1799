"""What two runs of one model have in common, and where they part: metrics, gates, reports."""
