"""`python -m kernels check | tune | list`: whether the kernels are correct on this device, which are fastest, and what is
chosen.

cases.py lists what is run. check.py and tune.py run each case in its own process (processes.py, worker.py), where comparison.py
compares it with float64 and measure.py times it. listing.py shows the choices.
"""
