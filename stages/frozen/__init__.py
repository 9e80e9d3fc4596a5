"""The recipe `frozen`: a pretrained encoder that is never trained, and one linear layer on its features."""
