"""Many clients for a while, some of whom go away at any moment: `python -m tests.soak.run`."""
