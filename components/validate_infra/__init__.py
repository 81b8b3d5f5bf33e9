"""validate_infra: both models are loaded and asked as they will be in production, before anything ships."""
