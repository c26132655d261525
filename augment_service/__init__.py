"""Distributed data augmentation of TinyBERT (arXiv 1909.10351, Algorithm 1)."""
