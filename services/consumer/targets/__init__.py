"""The LMSs behind one port: `port` says what the driver needs from any of them, each folder is one LMS."""
