"""The log on Kafka: confluent-kafka for coordinators, aiokafka for clients and workers."""
