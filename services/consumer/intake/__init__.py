"""From the log to the ledger. `service.Intake` is what the process holds; the other modules are its parts, one concern each."""
