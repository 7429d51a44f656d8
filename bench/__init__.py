"""How fast it is: real processes, a real Kafka and PostgreSQL, always beside a baseline in the same run. `make bench`."""
