"""Running replays: `runner` holds the thread and the turns, `steps` what one batch does, `log` what is asked of Kafka."""
