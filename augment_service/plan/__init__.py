"""`augment_service plan`: what a run would take, measured on a few rows."""
