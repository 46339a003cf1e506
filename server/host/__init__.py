"""What the process asks of its kernel, its allocator and gRPC's core, and what it knows of its memory."""
