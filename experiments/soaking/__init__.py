"""What experiments.soak does to training runs: cases, processes, faults."""
