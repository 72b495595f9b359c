"""Index: every file below a data set's root becomes one row: who, what, where, why excluded."""
