"""Finds the packaged models: an encoder and word vectors installed by pip, and the masked-LM delta stored here."""

from shared.embedded.wheels import EMBEDDED, embedded_encoder_path, embedded_glove_path, resolve_encoder

__all__ = ["EMBEDDED", "embedded_encoder_path", "embedded_glove_path", "resolve_encoder"]
