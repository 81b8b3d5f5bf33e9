"""dual serve: the promoted cloud model behind TF Serving's own REST and gRPC."""

import click

from pipelines.cli.options import store_option


@click.command("serve")
@store_option
@click.option("--rest-port", default=8501, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--grpc-port", default=8500, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--name", default="classifier", show_default=True, help="Name of the served model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def command(store: str, rest_port: int, grpc_port: int, name: str, host: str) -> None:
    """Serve the promoted cloud model and follow what is promoted or undone; Ctrl-C drains and ends.

    A stand-in for TF Serving on machines that can't run it: same paths, protos, errors and metrics.
    """
    from serving.server.store import serve_store

    serve_store(store, rest_port=rest_port, grpc_port=grpc_port, name=name, host=host)
