"""Pictures of data, predictions and activations."""
