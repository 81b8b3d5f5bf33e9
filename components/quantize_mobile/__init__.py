"""quantize_mobile: the trained mobile network becomes a full int8 .tflite, by the cheapest method that keeps its accuracy."""
