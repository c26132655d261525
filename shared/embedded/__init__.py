"""Finds the models that come with pip: an encoder, word vectors, and the masked-LM delta that is kept here."""

from shared.embedded.wheels import EMBEDDED, embedded_encoder_path, embedded_glove_path, resolve_encoder

__all__ = ["EMBEDDED", "embedded_encoder_path", "embedded_glove_path", "resolve_encoder"]
