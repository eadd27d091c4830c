"""Compiled kernels, executed on the CPU: cases, running and comparing them, faults put into their text, what is recorded."""
