#!/usr/bin/env python3
"""Client and service operations of pika at a broker.

    peer.py URL declare QUEUE…                       declares durable quorum queues
    peer.py URL declare-classic QUEUE…               declares durable classic queues
    peer.py URL publish QUEUE BODY [COUNT] [HEADER=VALUE…]
                                                     publishes with publisher confirms; `#` in BODY is replaced by the
                                                     number of the message; header values are lists in brackets,
                                                     timestamps after `@`, decimals after `$`, or strings
    peer.py URL bind EXCHANGE QUEUE KEY              declares a queue and binds it to an exchange
    peer.py URL fill QUEUE BODY COUNT                publishes without waiting, except for the confirm of the last
    peer.py URL drain QUEUE COUNT                    consumes messages, and prints each as a line of JSON
    peer.py URL depth QUEUE                          prints the number of ready messages
    peer.py URL call QUEUE BODY                      sends a request with direct reply-to, and prints the reply as a line of JSON
    peer.py URL serve QUEUE                          replies to requests with their body, or with the fault in it

URL is the address of the broker. BODY is JSON, or `hex:…` for application/protobuf. A body that is not UTF-8 is printed as `hex:…`.
"""

import datetime
import decimal
import json
import sys
import time

import pika

TIMEOUT_S = 20


def payload(text):
    if text.startswith("hex:"):
        return bytes.fromhex(text[4:]), "application/protobuf"
    return text.encode(), "application/json"


def show(body):
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "hex:" + body.hex()


def to_json(properties, body):
    headers = {name: repr(value) if isinstance(value, bytes) else value for name, value in (properties.headers or {}).items()}
    return json.dumps({
        "body": show(body), "content_type": properties.content_type, "headers": headers,
        "message_id": properties.message_id, "correlation_id": properties.correlation_id,
        "delivery_mode": properties.delivery_mode, "priority": properties.priority, "expiration": properties.expiration,
    })


def declare(channel, *queues):
    for queue in queues:
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def declare_classic(channel, *queues):
    for queue in queues:
        channel.queue_declare(queue, durable=True)


def typed(text):
    if text.startswith("@"):
        return datetime.datetime.fromtimestamp(int(text[1:]), datetime.timezone.utc)
    if text.startswith("$"):
        return decimal.Decimal(text[1:])
    return json.loads(text) if text.startswith("[") else text


def bind(channel, exchange, queue, key):
    declare(channel, queue)
    channel.queue_bind(queue, exchange, key)


def publish(channel, queue, body, count="1", *headers):
    channel.confirm_delivery()
    table = dict(header.split("=", 1) for header in headers)
    table = {name: typed(value) for name, value in table.items()}
    for number in range(int(count)):
        content, content_type = payload(body.replace("#", str(number)))
        properties = pika.BasicProperties(
            content_type=content_type, delivery_mode=2, message_id=f"{queue}-{number}", headers=table)
        channel.basic_publish("", queue, content, properties, mandatory=True)


def fill(channel, queue, body, count):
    count = int(count)
    for number in range(count):
        if number == count - 1:
            # Messages of one channel arrive in order: once the last is confirmed, all are stored.
            channel.confirm_delivery()
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=f"{queue}-{number}")
        channel.basic_publish("", queue, body.replace("#", str(number)).encode(), properties, mandatory=True)


def drain(channel, queue, count):
    consumed, deadline = 0, time.monotonic() + TIMEOUT_S
    channel.basic_qos(prefetch_count=500)
    for method, properties, body in channel.consume(queue, inactivity_timeout=0.5):
        if method is not None:
            print(to_json(properties, body), flush=True)
            channel.basic_ack(method.delivery_tag)
            consumed += 1
            deadline = time.monotonic() + TIMEOUT_S
        if consumed >= int(count) or time.monotonic() > deadline:
            break
    channel.cancel()


def depth(channel, queue):
    print(channel.queue_declare(queue, passive=True).method.message_count)


def call(channel, queue, body):
    replies = []

    def on_reply(_, __, properties, body):
        replies.append(to_json(properties, body))

    channel.basic_consume("amq.rabbitmq.reply-to", on_reply, auto_ack=True)
    content, content_type = payload(body)
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="c-1", content_type=content_type)
    channel.basic_publish("", queue, content, properties)
    deadline = time.monotonic() + TIMEOUT_S
    while not replies and time.monotonic() < deadline:
        channel.connection.process_data_events(time_limit=0.2)
    print(replies[0] if replies else "no reply")


def serve(channel, queue):
    declare(channel, queue)

    def on_request(channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id, content_type=properties.content_type,
                                     headers={"x-contract": (properties.headers or {}).get("x-contract", "none")})
        try:
            fault = json.loads(body).get("fault")
        except (ValueError, AttributeError):
            fault = None
        channel.basic_ack(method.delivery_tag)
        if fault == "silence":
            return
        if fault == "late":
            channel.connection.sleep(1.5)
            fault = None
        if fault is not None:
            reply.headers = {"crossdock-status": fault, "crossdock-reason": "TEST", "crossdock-error": "asked to fail"}
        channel.basic_publish("", properties.reply_to, body, reply)

    channel.basic_consume(queue, on_request)
    print("serves at 127.0.0.1:1", flush=True)
    channel.start_consuming()


def main():
    url, command, *arguments = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    commands = {"declare": declare, "declare-classic": declare_classic, "bind": bind, "publish": publish, "fill": fill, "drain": drain,
                "depth": depth, "call": call, "serve": serve}
    commands[command](connection.channel(), *arguments)
    connection.close()


if __name__ == "__main__":
    main()
