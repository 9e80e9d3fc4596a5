"""Where photos come from, and how they are kept."""
