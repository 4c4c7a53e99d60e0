"""Real devices, a real service, real HTTP, and what goes wrong between them.

After jepsen-powersync: so many clients, so many transactions a second that read a hundred keys and
write four of them, and one kind of fault; in the end all heals, and all devices must be equal, with
nothing unsent and nothing lost.

- `client`: a device in a process of its own, which writes and syncs at the same time.
- `proxy`: the network between a device and the service, which can be cut or held.
- `cell`: one run: so many clients, one kind of fault, and the checks.

`python -m tests.system.matrix` runs the whole matrix.
"""
