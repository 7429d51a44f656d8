"""Comparing the ledger with the rosters of the LMS: before the first write, beside another feed, and for good."""
