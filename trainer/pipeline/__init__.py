"""`trainer distill`: from a file of labelled text to a student that can be handed on, as a plan of commands."""
