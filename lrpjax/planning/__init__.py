"""What a method will do with a model, and whether the reading holds on its data."""
