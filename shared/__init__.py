"""The contract between augmentation and training: formats, storage, randomness, errors."""
