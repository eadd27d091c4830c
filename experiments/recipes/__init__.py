"""One file per model and data set."""
