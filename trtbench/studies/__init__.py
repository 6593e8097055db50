"""Questions that a single run leaves open, each measured by several."""
