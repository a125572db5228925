"""A pricing service on Kafka: service.py BROKERS. It replies to the topic and with the correlation id that a request names, as Spring Kafka does."""

import asyncio
import decimal
import json
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

PRICES = {"085": decimal.Decimal("1.10"), "086": decimal.Decimal("2.50")}


def price(request):
    unit = PRICES.get(request["sku"])
    if unit is None:
        # The headers with which a service of the gateway reports a fault: NOT_FOUND.
        return {"error": "unknown SKU"}, [("crossdock-status", b"5"), ("crossdock-reason", b"UNKNOWN_SKU"), ("crossdock-error", b"unknown SKU")]
    return {"total": str(unit * request["pieces"])}, []


async def main(brokers):
    consumer = AIOKafkaConsumer("example-prices", bootstrap_servers=brokers, group_id="example-pricing", auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all")
    await consumer.start()
    await producer.start()
    print("listening", flush=True)
    async for request in consumer:
        headers = dict(request.headers)
        document, fault = price(json.loads(request.value))
        back = [("kafka_correlationId", headers["kafka_correlationId"]), ("content-type", b"application/json"), *fault]
        await producer.send(headers["kafka_replyTopic"].decode(), json.dumps(document).encode(), request.key, headers=back)


asyncio.run(main(sys.argv[1]))
