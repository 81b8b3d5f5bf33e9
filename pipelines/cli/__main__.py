"""`python -m pipelines.cli` is `dual`."""

from pipelines.cli import main

main()
