"""The pipeline of the steps, the targets that it runs on, and the command line."""
