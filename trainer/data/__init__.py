"""Shards, tables and plain text to batches of training examples."""
