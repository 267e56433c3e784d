"""How fast the meter is, as ratios to floors that are timed in the same run: `python -m benchmarks --help`.

A floor is the least that any program would have to do: a raw insert, a scan, a bare interpreter. Both sides
take turns, who begins changes from round to round, and what counts is the median of the per-round ratios: the
absolute figures of a shared machine mean little.

measure    taking turns, ratios, rows of the table
workload   plausible usage, the same on every run
plain      the event table alone, without the meter
filled     ledgers with months of history, built once
worker     the other processes
"""
