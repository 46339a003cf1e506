"""The main job from end to end: `python -m demo`, or `make demo`."""
