"""What the evaluating steps share: predictions, metrics with intervals, and the pictures of them."""
