"""What both sides, augmentation and training, must agree on: formats, storage, randomness, errors."""
