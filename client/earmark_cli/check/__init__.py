"""`earmark check`: what Earmark finds in a recording, at a microphone, and in the installation."""
