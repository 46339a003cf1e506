"""Where time and bytes went: the ledger, the metrics and the page that Prometheus reads."""
