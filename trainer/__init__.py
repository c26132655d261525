"""Two-stage TinyBERT distillation (arXiv 1909.10351) that streams augmented shards."""
