"""The page for moderators, in Gradio; it knows nothing of the service but its HTTP."""
