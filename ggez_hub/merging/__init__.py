"""Alpha: on files, and on models in memory."""
