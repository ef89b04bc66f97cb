"""Corpora: reading, filtering, decoding."""
