"""The pocket world: drawn concepts and small real models, so that everything runs offline on a laptop. All synthetic."""
