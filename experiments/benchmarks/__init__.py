"""Measurements a person runs; each writes a file under experiments/results/."""
