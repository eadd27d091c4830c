"""The parts of experiments.compare: cases, contenders, the runs, tables and pictures."""
