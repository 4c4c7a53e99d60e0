"""Fleets of devices with odd tables, in one thread, from one seed: the same seed is the same run.

The simulation beside this one has tables as people make them, a real service, and faults of every
kind. Here the tables are the odd part: circles of references, keys that are references, references
to what is no key and changes, keys without case; and people who write to them in every way, copy
files, put old ones back, and read all anew. Devices must end equal. A failure is replayed by one
command:

    python -m tests.system.odd --seed 42

One noun a file, from the ground up:

    models     the tables
    user       what somebody does to them
    plan       what a fleet is like
    device     a database file, its models, a `Sync`
    fleet      devices and a log in memory, from a seed to a digest; many fleets
    shrinking  which steps a failure takes
"""
