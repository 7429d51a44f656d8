"""Kafka as the consumer sees it: one adapter for each use, and the values that they speak in."""
