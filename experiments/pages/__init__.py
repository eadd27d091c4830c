"""The tables of README and docs that belong to no other part, made from result files."""
