"""The result files as one page for a browser: python -m experiments.report --html."""
