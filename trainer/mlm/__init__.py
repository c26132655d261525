"""Turning an encoder into a masked LM, or adapting one to a user's text."""
