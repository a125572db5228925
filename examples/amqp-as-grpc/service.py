"""A stock service behind a queue: service.py AMQP-URL. It publishes each reply to the queue that the request names."""

import json
import sys

import pika

STOCK = {"085": 42, "086": 9_007_199_254_740_993}


def handle(channel, method, properties, body):
    request = json.loads(body)
    reply, properties_out = {}, pika.BasicProperties(correlation_id=properties.correlation_id, content_type="application/json")
    left = STOCK.get(request["Sku"])
    if left is None:
        # An error is reported as a google.rpc code in a header.
        properties_out.headers = {"crossdock-status": 5, "crossdock-reason": "NO_SUCH_SKU", "crossdock-error": "unknown"}
    else:
        STOCK[request["Sku"]] = left - request["Quantity"]
        reply = request | {"Left": STOCK[request["Sku"]]}
    channel.basic_publish("", properties.reply_to, json.dumps(reply), properties_out)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.queue_declare("example-stock", durable=True)
channel.basic_consume("example-stock", handle)
print("consuming from the queue example-stock", flush=True)
channel.start_consuming()
