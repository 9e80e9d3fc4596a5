"""What the stage release decides by, and how a candidate becomes a release."""
