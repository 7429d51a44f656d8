"""The driver: the one process that holds a target's lease and calls it until every seat is as wanted.

`driver` is the loop; `scheduler`, `pacing`, `backoff` and `reactions` are its rules and do no I/O; `lease`, `intents`,
`outcomes`, `waiting`, `takeover` and `upkeep` are its statements; `owner` and `recorder` carry them to PostgreSQL.
"""
