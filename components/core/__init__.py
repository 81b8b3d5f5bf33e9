"""The nouns that every step shares: errors, stores, run records, verdicts, releases. No TensorFlow, no KFP."""
