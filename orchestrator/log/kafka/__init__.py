"""The log on Kafka, by librdkafka: ``log`` for coordinators and views, ``aio`` for clients and workers."""
