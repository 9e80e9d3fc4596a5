"""Photos as shops have them: a manifest names each one, and three ways bring them."""
