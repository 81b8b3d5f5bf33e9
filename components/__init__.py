"""One folder per pipeline step, plus `core` (shared nouns), `training` and `evaluation` (shared by several steps)."""
