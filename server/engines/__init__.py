"""The engines that are served, the threads that run them, and what they do to one batch."""
