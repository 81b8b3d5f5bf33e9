"""dual rollout follow: a process that does what nobody else does for the rollouts of one model."""

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import click

from pipelines.cli.options import cluster_options, store_option


@click.command("follow")
@store_option
@cluster_options
@click.option("--once", is_flag=True, help="Do what is due now and end, instead of following for good.")
@click.option("--resync", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Seconds after which to look in any case.")
@click.option(
    "--heartbeat", type=click.Path(path_type=Path, dir_okay=False), help="File that is touched while all is well, for a liveness probe."
)
@click.option(
    "--notify-env",
    default="DUAL_NOTIFY_URL",
    show_default=True,
    metavar="VARIABLE",
    help="Environment variable with the URL of a webhook that is told of every transition.",
)
def command(store: str, cluster: Any, once: bool, resync: float, heartbeat: Path | None, notify_env: str) -> None:
    """Watch the rollouts, carry out what is asked by kubectl annotate, and end what a dead process left.

    While a process runs a rollout, this one only looks. When none does: undo goes back to the release before, both halves; promote, pause,
    resume and abort work on a rollout whose process died; such a rollout is brought to its end (or taken back, by the plan's if_abandoned);
    a pair that was not published in time goes back. Any number of followers may run; one is enough.
    """
    from components.core.stores import open_store
    from serving.rollout.cluster.follow import Follower, Heartbeat
    from serving.rollout.cluster.settings import ClusterSettings
    from serving.rollout.cluster.site import connect_to

    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, _stop)
    name, options = cluster
    told = {"url_env": notify_env} if os.environ.get(notify_env, "").strip() else {}
    settings = ClusterSettings.model_validate({**options, "notifications": told})
    run_id = f"follower@{os.uname().nodename}"
    follower = Follower(connect_to(settings), open_store(store), name, settings, run_id, click.echo, Heartbeat(heartbeat), resync)
    follower.run(once=once)


def _stop(*_: object) -> NoReturn:
    from serving.rollout.cluster.follow import Stopped

    # Once is enough: what ends now must not be cut off by impatience.
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, signal.SIG_IGN)
    raise Stopped
