"""Fleets of devices with odd tables, in one thread, from one seed: the same seed is the same run.

The simulation beside this one has tables as people make them, a real service, and faults of every
kind. Here the tables are the odd part: circles of references, keys that are references, references
to what is no key and changes, keys without case; and people who write to them in every way, copy
files, put old ones back, and read all anew. Some devices may keep their data in PostgreSQL or
MySQL; some refuse rows by triggers, or have no place for a value, until the end. Devices must end
equal. A failure is replayed by one command:

    python -m tests.system.odd --seed 42
    python -m tests.system.odd --seed 42 --databases sqlite,postgres,mysql

One noun a file, from the ground up:

    models     the tables
    obstacles  what is in the way of rows on some devices
    user       what somebody does to them
    plan       what a fleet is like
    places     where a device keeps its data
    logs       a log that can be compacted
    device     a database, its models, a `Sync`
    fleet      devices and a log, from a seed to a digest; many fleets
    shrinking  which steps a failure takes
"""
