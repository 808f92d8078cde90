"""The server's memory: its limit, and the connections that are closed before it is reached."""
