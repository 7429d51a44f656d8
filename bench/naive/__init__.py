"""What a competent programmer would write in a day: receive, produce, consume, POST. No mirror, no ledger, no order, no retry
beyond a few attempts, nothing after a crash. The baseline."""
