"""The recorder of what Peewee executes, and of what was missed."""
