"""The demo: the whole system as separate processes on one machine, a registration morning, and a verdict."""
