"""A fleet of devices and a service in one thread, from one seed, under faults.

Everything that is random, the time, the ids and the order of events come from the seed, so
the same seed gives the same run, and a failure is replayed by one command:

    python -m tests.system.simulation --seed 42

One noun a file, from the ground up:

    trace      what happened, line by line, and the digest of it
    faults     which faults strike, how often, and the crash itself
    clocks     the world's time, and devices' clocks, which are wrong
    models     the application's tables
    files      databases that can be lost at any statement
    service    the real service, which can die and be restored; `memory_service`, its stand-in
    network    the way between them: lost, late, doubled requests; partitions
    workload   what users do
    device     one replica: a file, its models, a `Sync`; works, syncs, dies, restarts
    oracle     what must be in the tables, worked out from the log alone
    checks     what must hold when all is quiet
    report     what a world did, in figures
    world      brings them together: events in time, from a seed to a report
    fleet      many worlds, one after the other, within bounds
"""
