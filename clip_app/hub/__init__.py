"""The model from the Hub into the shared cache: verified, once, and complete or not at all."""
