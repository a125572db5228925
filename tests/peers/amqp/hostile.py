#!/usr/bin/env python3
"""Malicious and malformed messages, published with pika.

    hostile.py URL nest QUEUE KIND LEVELS     publishes a message with nested headers; KIND is F (tables) or A (arrays)
    hostile.py URL latin1 QUEUE PROPERTY      publishes a message with a property, or routing key (`key`), that is not UTF-8
    hostile.py URL region EXCHANGE QUEUE      declares a headers exchange that routes `region: eu` to the queue
    hostile.py URL equal QUEUE COUNT          publishes messages with equal ids, alternately with `region: eu` and `region: mars`
    hostile.py URL answer QUEUE KIND LEVELS   replies to one request with nested headers
    hostile.py URL address KIND               prints a reply address: `gone`, of a closed connection, or `foreign`, of another cluster
    hostile.py URL ask QUEUE ADDRESS COUNT    publishes requests with this reply address
    hostile.py URL expiring QUEUE COUNT MS    publishes messages that expire

URL is the address of the broker.
"""

import base64
import struct
import sys

import pika
import pika.data


def nested(kind, levels):
    """The encoding of a table with `levels` levels, itself included."""
    content = b""
    for level in range(1, levels):
        name = b"\x01a" if kind == "F" or level + 1 == levels else b""
        content = name + kind.encode() + struct.pack(">I", len(content)) + content
    return struct.pack(">I", len(content)) + content


def publish_raw(channel, queue, table, **properties):
    """Publishes with an already encoded header table."""
    encode = pika.data.encode_table

    def raw(pieces, value):
        if value != {"raw": 1}:
            return encode(pieces, value)
        pieces.append(table)
        return len(table)

    pika.data.encode_table = raw
    try:
        channel.basic_publish("", queue, b'{"a":1}', pika.BasicProperties(
            content_type="application/json", delivery_mode=2, headers={"raw": 1}, **properties))
    finally:
        pika.data.encode_table = encode


def nest(channel, queue, kind, levels):
    channel.confirm_delivery()
    publish_raw(channel, queue, nested(kind, int(levels)), message_id=f"{kind}-{levels}")


def latin1(channel, queue, name):
    channel.confirm_delivery()
    properties = {"content_type": "application/json", "delivery_mode": 2}
    exchange, key = "", queue
    if name == "key":
        exchange, key = "amq.fanout", b"gr\xfc\xdf"
        channel.queue_bind(queue, exchange)
    else:
        properties[name] = b"gr\xfc\xdf"
    channel.basic_publish(exchange, key, b'{"a":1}', pika.BasicProperties(**properties))


def region(channel, exchange, queue):
    channel.exchange_declare(exchange, "headers", durable=True)
    channel.queue_bind(queue, exchange, "", {"x-match": "all", "region": "eu"})


def equal(channel, queue, count):
    for number in range(int(count)):
        if number == int(count) - 1:
            channel.confirm_delivery()
        headers = {"region": "eu" if number % 2 == 0 else "mars", "n": str(number)}
        channel.basic_publish("", queue, b'{"n":%d}' % number, pika.BasicProperties(
            content_type="application/json", delivery_mode=2, message_id="one-id", headers=headers))


def answer(channel, queue, kind, levels):
    print("serves at 127.0.0.1:1", flush=True)
    for method, properties, _ in channel.consume(queue, inactivity_timeout=20):
        if method is not None:
            publish_raw(channel, properties.reply_to, nested(kind, int(levels)), correlation_id=properties.correlation_id)
            channel.basic_ack(method.delivery_tag)
        break


def address(channel, kind):
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", queue, b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    properties = None
    while properties is None:
        _, properties, _ = channel.basic_get(queue, auto_ack=True)
    prefix, token = properties.reply_to[:22], properties.reply_to[22:]
    process, key = token.rsplit(".", 1)
    decoded = base64.b64decode(process)
    if kind == "foreign":
        # The node name is `reply@` followed by a number; change its first digit.
        at = decoded.index(b"reply@") + 6
        decoded = decoded[:at] + bytes([ord("1") if decoded[at] != ord("1") else ord("2")]) + decoded[at + 1:]
    print(prefix + base64.b64encode(decoded).decode() + "." + key)


def ask(channel, queue, reply_to, count):
    channel.confirm_delivery()
    for number in range(int(count)):
        channel.basic_publish("", queue, b'{"a":1}', pika.BasicProperties(
            content_type="application/json", delivery_mode=2, reply_to=reply_to, correlation_id=str(number)))


def expiring(channel, queue, count, millis):
    for number in range(int(count)):
        if number == int(count) - 1:
            channel.confirm_delivery()
        channel.basic_publish("", queue, b'{"n":%d}' % number, pika.BasicProperties(
            content_type="application/json", delivery_mode=2, expiration=millis))


def main():
    url, command, *arguments = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    {"nest": nest, "latin1": latin1, "region": region, "equal": equal, "answer": answer, "address": address, "ask": ask,
     "expiring": expiring}[command](connection.channel(), *arguments)
    connection.close()


if __name__ == "__main__":
    main()
