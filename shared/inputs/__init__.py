"""Input files to source rows."""
