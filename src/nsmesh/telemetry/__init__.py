"""What a process tells of itself to the tools of others: metrics for Prometheus, traces for OpenTelemetry."""
