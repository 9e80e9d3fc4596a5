"""The recipe `network`: a network trained from end to end. Its steps are the stage scripts themselves."""
