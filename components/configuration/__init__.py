"""The run's settings: their model, the layers that they come from, and the form of a run on Kubeflow or Vertex."""
