"""The distributed job: plans shards, runs them on Ray actors, commits them."""
