"""A trained classifier over the rows of a table."""
