"""The synthetic pool: plan, shards, report."""
