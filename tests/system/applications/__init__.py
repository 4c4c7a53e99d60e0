"""Applications that were not written for sharedlog, before and after they adopted it.

They are rebuilt from what Peewee's own example applications do: the same models, fields, indexes
and ways of querying and writing, in other words. `original.py` is the application as it was;
`synced.py` differs from it in the few lines that docs/adoption.md shows.
"""
