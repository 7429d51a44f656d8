"""The event contract between the publisher, the consumer and anyone else who reads the log.

Imports nothing of ours. `events` holds the models, `keys` the identities, `topics` the names, `headers` the CloudEvents
binding and `codec` the bytes; ``python -m schemas`` writes and checks the generated JSON Schema.
"""
