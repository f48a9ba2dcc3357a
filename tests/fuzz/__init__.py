"""Malformed inputs at every door: no crash, no hang, no 5xx, no memory without bound, and every refusal a sentence.

damage.py     makes malformed bytes and JSON of whole ones, by a seed, and keeps one that is a fault
reading.py    the process that analyses malformed files, whose crash is a finding and not the end of the tests
test_*.py     one for each way in

`make test` tries some hundreds, and `make fuzz` thousands, by Hypothesis's profile `fuzz`.
"""
