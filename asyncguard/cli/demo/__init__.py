"""`asyncguard demo`: a real retrieval pipeline under real faults, on parts that live for a minute.

Read `guarded.py` first: it is what you would copy.
"""
