"""Registers the schemas of the example, and writes three readings: send.py BROKERS REGISTRY."""

import asyncio
import datetime
import decimal
import io
import json
import struct
import sys
import urllib.request

import fastavro
from aiokafka import AIOKafkaProducer

FIELDS = [
    {"name": "sensor", "type": "string"},
    {"name": "celsius", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
]
READING = {"type": "record", "name": "plant.Reading", "fields": FIELDS + [{"name": "note", "type": ["null", "string"], "default": None}]}
ALARM = {"type": "record", "name": "plant.Alarm", "fields": FIELDS}


def register(registry, subject, schema):
    request = urllib.request.Request(f"{registry}/subjects/{subject}/versions", json.dumps({"schema": json.dumps(schema)}).encode(),
                                     {"Content-Type": "application/vnd.schemaregistry.v1+json"})
    return json.load(urllib.request.urlopen(request))["id"]


async def main(brokers, registry):
    number = register(registry, "example-readings-value", READING)
    register(registry, "example-alarms-value", ALARM)
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for minute, celsius in enumerate(["21.50", "40.01", "-3.00"]):
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, number))
        at = datetime.datetime(2026, 1, 31, 6, minute, tzinfo=datetime.timezone.utc)
        fastavro.schemaless_writer(out, READING, {"sensor": "s-1", "celsius": decimal.Decimal(celsius), "at": at})
        await producer.send_and_wait("example-readings", out.getvalue())
    await producer.stop()


asyncio.run(main(*sys.argv[1:]))
