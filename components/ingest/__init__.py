"""Images from anywhere become sharded, split, deduplicated examples."""
