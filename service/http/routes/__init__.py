"""The routes, a module for each kind; docs/API.md describes them all."""
