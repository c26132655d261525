"""`trainer distill`: from a labelled text file to a student ready to ship, as a plan of commands."""
