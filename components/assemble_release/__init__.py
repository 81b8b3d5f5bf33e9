"""assemble_release: every verdict is collected; a blessed pair becomes a release, anything else becomes nothing."""
