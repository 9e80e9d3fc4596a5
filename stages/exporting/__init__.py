"""What is added to a trained network to make it a model file."""
