"""Fuzzing of what the program reads: seeded, a few seconds of it in the suite, as long as one likes by hand.

python -m tests.fuzz --rounds 20000
"""
