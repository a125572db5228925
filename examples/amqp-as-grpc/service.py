"""A stock service behind a queue: service.py AMQP-URL. It answers each request in the queue that the request names."""

import json
import sys

import pika

STOCK = {"085": 42, "086": 9_007_199_254_740_993}


def asked(channel, method, properties, body):
    wanted = json.loads(body)
    reply, answer = {}, pika.BasicProperties(correlation_id=properties.correlation_id, content_type="application/json")
    left = STOCK.get(wanted["Sku"])
    if left is None:
        # How a service tells a failure: the number of a code of google.rpc.
        answer.headers = {"crossdock-status": 5, "crossdock-reason": "NO_SUCH_SKU", "crossdock-error": "unknown"}
    else:
        STOCK[wanted["Sku"]] = left - wanted["Quantity"]
        reply = wanted | {"Left": STOCK[wanted["Sku"]]}
    channel.basic_publish("", properties.reply_to, json.dumps(reply), answer)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.queue_declare("example-stock", durable=True)
channel.basic_consume("example-stock", asked)
print("listens to the queue example-stock", flush=True)
channel.start_consuming()
