"""Give a shop thresholds of its own, from its own real photos alone."""
