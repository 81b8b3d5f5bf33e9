"""A local server that speaks TensorFlow Serving's REST and gRPC; a stand-in for laptops and tests, and it says so."""
