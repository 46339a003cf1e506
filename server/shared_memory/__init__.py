"""Frames of clients on the same host, read where they lie: the server's memory, in the client's hands."""
