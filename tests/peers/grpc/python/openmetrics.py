"""Parses OpenMetrics text from standard input by Prometheus' own rules, and prints the names of its families, one per line."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.name)
