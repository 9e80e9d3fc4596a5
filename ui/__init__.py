"""The page for moderators, in Gradio; it uses the service by HTTP alone."""
