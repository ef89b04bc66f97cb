"""Questions, answers and their statistics."""
