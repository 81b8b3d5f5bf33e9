"""validate_data: what the images look like, whether they fit the schema, and whether they drifted from its reference."""
