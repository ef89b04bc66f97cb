"""Regional adapters."""
