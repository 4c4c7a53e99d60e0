"""How fast, how small, how frugal: measured against limits that are measured in the same run.

Run `python -m benchmarks`; docs/benchmarks.md says what each figure means.
"""
