"""plan_predictions: which release answers, and how many pods the images are worth."""
