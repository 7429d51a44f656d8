"""Small technical helpers that publisher, consumer and sandbox share; nothing here knows what an enrollment is."""
