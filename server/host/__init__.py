"""What the process asks of its kernel and allocator, and what it knows of its memory."""
