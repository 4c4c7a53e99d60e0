"""A disk that loses power, fills up and fails, for anything that opens files through apsw.

    disk       the disk itself: an SQLite VFS that records every call, and fails on demand
    power      what may be left of the files at any moment, if the power went away just then

What is taken into account:

- What was written or cut off is certain only after a sync of that file. Until then each write by
  itself may be there, be missing, be there in some of its sectors of 512 bytes, or have left noise
  in the sectors that were being written.
- A name in the folder is certain only after a sync of the folder. Until then a new file may be
  missing altogether, whatever was synced of its content, and a deleted one may be back. SQLite
  syncs the folder with the first sync of a new journal or log, and after a deletion if it asks for
  that (`synchronous=EXTRA`).

What is not: a drive that says it has synced when it has not; damage to what nobody was writing;
the shared memory of a write-ahead log, which SQLite makes anew after a crash; temporary files.
"""
