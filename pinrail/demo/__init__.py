"""The proof: simulated browsers, releases under load, and a judge who trusts only what the client saw."""
