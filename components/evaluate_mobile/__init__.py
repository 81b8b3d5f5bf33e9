"""evaluate_mobile: the exported mobile model is measured on a split and judged."""
