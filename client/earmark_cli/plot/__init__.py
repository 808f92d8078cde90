"""`earmark plot`: the timeline of a recording, as an HTML page or as an image."""
