"""The HTTP face: what holds for every request, and the routes."""
