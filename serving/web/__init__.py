"""A page that follows a channel in a browser: `dual web`."""
