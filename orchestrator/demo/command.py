"""``orchestrator demo``. Its help imports nothing of what it does."""

from __future__ import annotations

from pathlib import Path

from orchestrator import config


def demo(
    *,
    serve: bool = False,
    port: int = config.PORT,
    data: Path | None = None,
    log: str = "",
    namespace: str = "",
    kafka_config: Path | None = None,
) -> int:
    """Run business processes, kill the engine under them, and prove that nothing was lost.

    Merchants are onboarded and orders are fulfilled by an engine in a process of its own, which is killed
    with SIGKILL in the middle of it and started again. With --log, by two coordinators, two workers and a
    view on Kafka; one of each is killed. Exits with 1 if anything is not as it should be.

    Parameters
    ----------
    serve:
        Keep the engine running afterwards, until Ctrl-C.
    port:
        Where the engine serves HTTP, on 127.0.0.1; 0 takes a free one.
    data:
        The folder that keeps all data; by default a temporary one, which is removed at the end.
    log:
        Brokers, such as kafka://127.0.0.1:9092; without, everything is in the folder.
    namespace:
        On Kafka: where it all happens; by default one of its own, which is removed at the end.
    kafka_config:
        A file with settings of the Kafka client, one name=value per line.
    """
    from orchestrator.demo.story import perform

    return perform(serve=serve, port=port, data=data, log=log, namespace=namespace, kafka_config=kafka_config)
