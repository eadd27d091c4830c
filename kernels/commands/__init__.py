"""`python -m kernels check | tune | list`: are the kernels right on this device, which are fastest there, and what is chosen.

cases has what is run; check and tune run it, each case in a process of its own (processes, worker), where comparison compares
with float64 and measure takes the time; listing shows the choices.
"""
