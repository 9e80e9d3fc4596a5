"""A model is a folder: its card, its file, and what turns its scores into decisions."""
