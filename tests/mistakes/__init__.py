"""Wrong configs and data, and right ones."""
