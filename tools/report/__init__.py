"""Pages written from the figures of a release."""
