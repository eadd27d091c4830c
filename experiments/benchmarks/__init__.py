"""Scripts that each measure something on this machine and write a result file under experiments/results/<device>/."""
