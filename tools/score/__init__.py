"""Score a whole catalogue of photos."""
