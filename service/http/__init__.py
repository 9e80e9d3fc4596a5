"""HTTP: the routes, and the rules for every request."""
