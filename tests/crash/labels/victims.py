"""Processes of rollouts by labels that are killed or stopped at a chosen write: `tests.crash.victims` with another perform."""

import sys
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DualError, RolloutError
from serving.rollout.cluster.api import connect
from tests.crash import victims
from tests.crash.labels import site
from tests.crash.labels.mutants import MUTANTS


@dataclass(frozen=True)
class LabelOrder(victims.Order):
    """Where the pods' pages are, besides what every order says."""

    pages: str = ""


def perform(order: LabelOrder) -> int:
    """Do what the order says; the exit code: 0 shipped, 1 the rollout went back, 5 a conflict, 9 anything else."""
    MUTANTS.get(order.mutant, lambda: None)()
    plain = connect(order.namespace, kubeconfig=Path(order.kubeconfig), patience=20)
    api = victims.DeadlyApi(plain._client, order.namespace, patience=20)
    api.order, api.checker = order, plain
    channel = victims.NotingChannel(Path(order.channel))
    channel.api = api
    victims.violations = lambda api, channel, state: list(site.violations(api, channel, state, order.pages))
    try:
        site.ship(api, channel, order.pages, order.release, run_id=order.run_id, fails=order.fails, kind=order.kind)
    except RolloutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except DualError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    finally:
        Path(f"{order.channel}.writes").write_text(str(api.writes))
    return 0


def main() -> None:
    """The zygote of these."""
    victims.Order, victims.perform = LabelOrder, perform  # pyright: ignore[reportAttributeAccessIssue]
    victims.main()


if __name__ == "__main__":
    main()
