"""What every measurement shares: the machine, the clock, the result file, the device model, counting, tables and pictures.

machine.py says what runs here and what it reaches, clock.py times, counting.py counts what a compiled program does and
device_model.py turns counts into time. resume.py is the loop that goes on where it stopped, sources.py the digest by which it
knows, result.py the file that is written. verdict.py says who won; tables.py and pictures.py show it.
"""
