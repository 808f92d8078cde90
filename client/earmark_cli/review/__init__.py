"""`earmark review`: mark the detection of each clip as right or wrong."""
