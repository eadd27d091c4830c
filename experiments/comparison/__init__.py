"""Parts of experiments.compare: the cases, the clock, the pictures."""
