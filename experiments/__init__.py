"""Everything a person runs: train, evaluate, generate, compare, inspect, tune, report, guide."""
