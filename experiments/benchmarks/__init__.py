"""Measurements on this machine: each is a script that writes a result file under experiments/results/<device>/."""
