"""The stages of a run, one module each. A stage never imports another."""
