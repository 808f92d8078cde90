"""`earmark plot`: a recording's timeline, as a page or as an image."""
