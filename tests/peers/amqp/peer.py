#!/usr/bin/env python3
"""What tests do at a broker with pika. The broker's address is the first argument.

    peer.py URL declare QUEUE…                       makes durable quorum queues
    peer.py URL declare-classic QUEUE…               makes durable classic queues
    peer.py URL publish QUEUE BODY [COUNT] [HEADER=VALUE…]
                                                     publishes with confirmation; `#` in BODY is the message's number,
                                                     and a value in brackets a list, behind `@` a timestamp, behind `$`
                                                     a decimal
    peer.py URL bind EXCHANGE QUEUE KEY              makes a queue that takes what the exchange gets with that key
    peer.py URL fill QUEUE BODY COUNT                publishes fast, and waits until all are there
    peer.py URL drain QUEUE COUNT                    takes messages, and prints each as a line of JSON
    peer.py URL depth QUEUE                          prints how many messages wait
    peer.py URL call QUEUE BODY                      asks by direct reply-to, and prints the reply as a line of JSON
    peer.py URL serve QUEUE                          answers requests: with their body, or with the fault that it names

A BODY is JSON; `hex:…` are bytes of application/protobuf. A body that is not UTF-8 is printed as `hex:…`.
"""

import datetime
import decimal
import json
import sys
import time

import pika

PATIENCE = 20


def payload(text):
    if text.startswith("hex:"):
        return bytes.fromhex(text[4:]), "application/protobuf"
    return text.encode(), "application/json"


def shown(body):
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "hex:" + body.hex()


def told(properties, body):
    headers = {name: repr(value) if isinstance(value, bytes) else value for name, value in (properties.headers or {}).items()}
    return json.dumps({
        "body": shown(body), "content_type": properties.content_type, "headers": headers,
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
            # One queue takes what one channel sends in order: with the last, all are there.
            channel.confirm_delivery()
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=f"{queue}-{number}")
        channel.basic_publish("", queue, body.replace("#", str(number)).encode(), properties, mandatory=True)


def drain(channel, queue, count):
    taken, deadline = 0, time.monotonic() + PATIENCE
    channel.basic_qos(prefetch_count=500)
    for method, properties, body in channel.consume(queue, inactivity_timeout=0.5):
        if method is not None:
            print(told(properties, body), flush=True)
            channel.basic_ack(method.delivery_tag)
            taken += 1
            deadline = time.monotonic() + PATIENCE
        if taken >= int(count) or time.monotonic() > deadline:
            break
    channel.cancel()


def depth(channel, queue):
    print(channel.queue_declare(queue, passive=True).method.message_count)


def call(channel, queue, body):
    answers = []

    def answered(_, __, properties, body):
        answers.append(told(properties, body))

    channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)
    content, content_type = payload(body)
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="c-1", content_type=content_type)
    channel.basic_publish("", queue, content, properties)
    deadline = time.monotonic() + PATIENCE
    while not answers and time.monotonic() < deadline:
        channel.connection.process_data_events(time_limit=0.2)
    print(answers[0] if answers else "no answer")


def serve(channel, queue):
    declare(channel, queue)

    def asked(channel, method, properties, body):
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

    channel.basic_consume(queue, asked)
    print("serves at 127.0.0.1:1", flush=True)
    channel.start_consuming()


def main():
    url, command, *arguments = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    {"declare": declare, "declare-classic": declare_classic, "bind": bind, "publish": publish, "fill": fill, "drain": drain, "depth": depth, "call": call, "serve": serve}[command](
        connection.channel(), *arguments)
    connection.close()


if __name__ == "__main__":
    main()
