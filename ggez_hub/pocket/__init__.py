"""The pocket world: drawn concepts and small real models, so that everything runs offline. All synthetic."""
