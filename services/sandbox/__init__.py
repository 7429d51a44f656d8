"""Stand-ins for the outside world: a faithful Canvas, an embedded Kafka broker, PostgreSQL and a small SIS.

They serve the demo, the tests and the drills; nothing in the product imports them.
"""
