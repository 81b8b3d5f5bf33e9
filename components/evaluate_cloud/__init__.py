"""evaluate_cloud: the exported cloud model is measured on a split and judged."""
