"""`augment_service plan`: time and storage of a run, estimated from a few measured rows."""
