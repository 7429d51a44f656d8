"""The processes of Enrollstream: publisher, consumer, and a sandbox to run both against."""
