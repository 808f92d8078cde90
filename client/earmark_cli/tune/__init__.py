"""`earmark tune`: choose thresholds with your own recordings."""
