"""What every measurement shares: the machine, the clock, the result file, the device model, counting, tables and pictures.

machine.py describes the machine and what it achieves, clock.py times, counting.py counts what a compiled program does and
device_model.py turns counts into time. resume.py is the loop that resumes where it stopped, sources.py the digest by which it
tells what is up to date, result.py the file format. verdict.py says who won; tables.py and pictures.py show it.
"""
