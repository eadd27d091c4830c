"""The tables of README and docs that belong to no other part, from result files."""
