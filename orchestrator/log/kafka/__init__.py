"""The log on Kafka, by confluent-kafka: for coordinators and views (``log``), for clients and workers (``aio``)."""
