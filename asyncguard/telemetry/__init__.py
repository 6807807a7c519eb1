"""What asyncguard tells the outside: spans and metrics for OpenTelemetry, structured log records, Prometheus metrics.

`JSONFormatter` and `structlog_processor` are for the logging set-up of an application,
`asyncguard.telemetry.prometheus.install` for one that has `prometheus_client` only. OpenTelemetry needs nothing: once
the application has set a provider, it is used.
"""

from __future__ import annotations

from asyncguard.telemetry.logs import JSONFormatter, structlog_processor

__all__ = ["JSONFormatter", "structlog_processor"]
