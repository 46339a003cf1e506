"""Which frame goes next: pure state machines, with time passed in."""
