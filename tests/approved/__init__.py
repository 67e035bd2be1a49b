"""Whole outputs, compared with texts that were read and checked once: outputs/*.txt.

A test of one field lets all others go wrong: a column that is exchanged, a unit that is lost, an order that
is turned round. Here the real writers are given scores and arrays with known numbers, and all that they
write is compared. The texts say *that* something changed; what is right was worked out beside them
(docs/faults.md).
Who changes an output on purpose reads the difference and writes it anew: python -m tests.approved.write
"""
