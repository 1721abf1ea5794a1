"""The options by which commands are told which Kafka is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli.exits import CommandUsage
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.log.aio import AioLog
    from orchestrator.log.kafka.settings import KafkaSettings


@Parameter(name="*")
@dataclass(frozen=True)
class Cluster:
    """Which Kafka, and which namespace on it.

    Parameters
    ----------
    log:
        The brokers, such as kafka://127.0.0.1:9092; default $ORCHESTRATOR_LOG.
    namespace:
        Keeps what belongs together apart from others on the same brokers; default
        $ORCHESTRATOR_NAMESPACE, or else "default".
    kafka_config:
        A file with settings of the Kafka client, one name=value per line, in librdkafka's names.
    """

    log: str = ""
    namespace: str = ""
    kafka_config: Path | None = None

    @property
    def address(self) -> str:
        """The log's address; raises CommandUsage if there is none."""
        address = self.log or os.environ.get(config.LOG_VARIABLE, "")
        if not address:
            raise CommandUsage(
                f"which Kafka? Name it with --log or ${config.LOG_VARIABLE}, such as kafka://127.0.0.1:9092"
            )
        return address

    @property
    def chosen_namespace(self) -> str:
        """The namespace that is meant."""
        return self.namespace or os.environ.get(config.NAMESPACE_VARIABLE, "") or config.NAMESPACE

    def settings(self) -> KafkaSettings:
        """Everything that a client of this cluster needs; raises CommandUsage."""
        from orchestrator.log.kafka.settings import load

        with _of_the_command_line():
            return load(
                self.address,
                namespace=self.chosen_namespace,
                config_file=self.kafka_config,
                environ=os.environ,
            )

    def connect(self) -> AioLog:
        """The asyncio side of the log, which may be an engine's, too; raises CommandUsage."""
        from orchestrator.log.connect import connect

        with _of_the_command_line():
            return connect(self.address, namespace=self.namespace, config_file=self.kafka_config)


@contextmanager
def _of_the_command_line() -> Iterator[None]:
    """What is configured wrongly here are the options."""
    try:
        yield
    except ConfigError as error:
        raise CommandUsage(str(error)) from error
