"""Output of the commands: printed lines, the live display, and recorded files."""
