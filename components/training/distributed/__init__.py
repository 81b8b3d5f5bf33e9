"""One training by several workers: what they are told, how they find each other, who starts, watches and ends them."""
