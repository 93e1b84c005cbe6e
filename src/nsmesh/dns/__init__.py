"""Names of wires: a DNS server for one pod, which asks those who know."""
