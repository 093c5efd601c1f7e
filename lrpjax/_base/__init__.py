"""What every room stands on: nothing here knows of models, layers or relevance."""
