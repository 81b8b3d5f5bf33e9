"""Google's Vertex AI by its REST: which project, who asks, how errors read. Runs, schedules and endpoints are built on it."""
