"""Relevance goes back through a model, by the rules of a method."""
