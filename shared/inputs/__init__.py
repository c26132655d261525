"""Input files -> source rows."""
