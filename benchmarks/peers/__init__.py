"""Other servers beside ours: the same model, the same client, in one run."""
