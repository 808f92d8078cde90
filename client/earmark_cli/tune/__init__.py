"""`earmark tune`: thresholds from labelled recordings."""
