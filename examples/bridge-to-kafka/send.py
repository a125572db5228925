"""Sends measurements to the queue: send.py URL SENSOR VALUE [SENSOR VALUE …]."""

import json
import sys

import pika

url, *pairs = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
channel.confirm_delivery()
for sensor, value in zip(pairs[::2], pairs[1::2]):
    document = {"sensor": sensor, "value": int(value) if value.isdigit() else value}
    channel.basic_publish("", "example-measurements", json.dumps(document).encode(),
                          pika.BasicProperties(content_type="application/json", delivery_mode=2))
