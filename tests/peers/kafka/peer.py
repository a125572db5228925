#!/usr/bin/env python3
"""Client operations of aiokafka, which does not use librdkafka.

    peer.py BROKERS create TOPIC[:PARTITIONS[:KEY=VALUE…]]…  creates topics with one or more partitions and settings
    peer.py BROKERS delete TOPIC                    deletes a topic
    peer.py BROKERS write TOPIC                     writes the records of standard input: lines of JSON as `read` prints them
    peer.py BROKERS write-binary-name TOPIC         writes a record with a header whose name is not UTF-8, and another header
    peer.py BROKERS write-in-transaction TOPIC VALUE   writes a record in a transaction
    peer.py BROKERS fill TOPIC VALUE COUNT [KEYS]   writes records; `#` in VALUE is replaced by the number, whose remainder by KEYS is the key
    peer.py BROKERS read TOPIC                      prints all committed records of a topic as lines of JSON
    peer.py BROKERS count TOPIC                     prints the number of committed records of a topic
    peer.py BROKERS committed GROUP TOPIC           prints the committed offset of each partition, or null
    peer.py BROKERS serve TOPIC [HEADERS]           replies to requests with their values until it is killed; a value {"fault": …} decides otherwise
    peer.py BROKERS ask TOPIC REPLIES VALUE [TYPE [HEADERS [PARTITION]]]   sends a request and prints its reply, or null after five seconds

HEADERS are those of requests: `spring` (default), `zilla` or `plain`.
A record is {"key", "value", "headers", "partition", "timestamp", "offset"}; keys, values and values of headers are null or text, or `hex:…` if they
are not UTF-8.
"""

import asyncio
import json
import os
import sys

if "write-binary-name" in sys.argv:
    # Its extension in C takes no names but strings.
    os.environ["AIOKAFKA_NO_EXTENSIONS"] = "1"

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


def text(data):
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "hex:" + data.hex()


def data(text):
    if text is None:
        return None
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()


async def create(brokers, topics):
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    new = []
    for topic in topics:
        name, partitions, *settings = topic.split(":") if ":" in topic else (topic, "1")
        new.append(NewTopic(name, int(partitions), brokers.count(",") + 1, topic_configs=dict(setting.split("=") for setting in settings)))
    response = await admin.create_topics(new)
    failed = [error for error in response.topic_errors if error[1] not in (0, 36)]
    if failed:
        sys.exit(f"cannot create: {failed}")
    # Until all brokers know the topics.
    for topic in new:
        for _ in range(100):
            described = await admin.describe_topics([topic.name])
            if all(entry["error_code"] == 0 and len(entry["partitions"]) == topic.num_partitions for entry in described):
                break
            await asyncio.sleep(0.05)
    await admin.close()


async def write(brokers, topic, records):
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=5)
    await producer.start()
    sent = []
    for record in records:
        headers = [(name, data(value)) for name, value in record.get("headers", [])]
        sent.append(await producer.send(topic, data(record.get("value")), data(record.get("key")), record.get("partition"),
                                        record.get("timestamp"), headers=headers))
    await asyncio.gather(*sent)
    await producer.stop()


async def read(brokers, topic):
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed", auto_offset_reset="earliest",
                                enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in await partitions_of(brokers, topic)]
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    records = []
    while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            records += batch
    await consumer.stop()
    return records


async def write_binary_name(brokers, topic):
    class Name(str):
        """A name that is encoded as bytes that are not UTF-8."""

        def encode(self, *_):
            return b"\xff\xfe"

    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all")
    await producer.start()
    await producer.send_and_wait(topic, b"{}", headers=[(Name("bad"), b"x"), ("x-good", b"kept")])
    await producer.stop()


async def write_in_transaction(brokers, topic, value):
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=f"{topic}-writer")
    await producer.start()
    async with producer.transaction():
        await producer.send(topic, value.encode())
    await producer.stop()


async def partitions_of(brokers, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    described = (await admin.describe_topics([topic]))[0]
    await admin.close()
    if described["error_code"] != 0:
        sys.exit(f"the topic {topic} cannot be read: error {described['error_code']}")
    return sorted(partition["partition"] for partition in described["partitions"])


async def committed(brokers, group, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    for _ in range(100):
        try:
            offsets = await admin.list_consumer_group_offsets(group)
            break
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            # A broker that has just started does not know the coordinator yet.
            await asyncio.sleep(0.1)
    await admin.close()
    print(json.dumps({partition.partition: found.offset for partition, found in offsets.items() if partition.topic == topic}))


NAMES = {
    "spring": ("kafka_replyTopic", "kafka_replyPartition", "kafka_correlationId"),
    "zilla": ("zilla:reply-to", None, "zilla:correlation-id"),
    "plain": ("reply-to", "reply-partition", "correlation-id"),
}


def partition_of(convention, value):
    if value is None:
        return None
    return int.from_bytes(value, "big") if convention == "spring" else int(value)


async def serve(brokers, topic, convention="spring"):
    to, partition, correlation = NAMES[convention]
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in await partitions_of(brokers, topic)])
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=0)
    await producer.start()
    print("serves at 127.0.0.1:1", flush=True)

    async def reply(request, headers, fault):
        if fault == "silence":
            return
        if fault == "late":
            await asyncio.sleep(1.5)
            fault = None
        back = [(correlation, headers[correlation])]
        if "content-type" in headers:
            back.append(("content-type", headers["content-type"]))
        if fault is not None:
            back += [("crossdock-status", str(fault).encode()), ("crossdock-reason", b"TEST"), ("crossdock-error", b"asked to fail")]
        back.append(("x-timeout", headers.get("crossdock-timeout", b"none")))
        await producer.send(headers[to].decode(), request.value, request.key, partition_of(convention, headers.get(partition)), headers=back)

    tasks = set()
    async for request in consumer:
        try:
            fault = json.loads(request.value).get("fault")
        except (ValueError, AttributeError):
            fault = None
        tasks.add(asyncio.create_task(reply(request, dict(request.headers), fault)))


async def ask(brokers, topic, replies, value, media_type=None, convention="spring", partition=None):
    to, partition_name, correlation = NAMES[convention]
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(replies, number) for number in await partitions_of(brokers, replies)]
    consumer.assign(partitions)
    for assigned in partitions:
        await consumer.seek_to_end(assigned)
        await consumer.position(assigned)
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=0)
    await producer.start()
    correlation_id = os.urandom(16) if convention == "spring" else os.urandom(16).hex().encode()
    headers = [(to, replies.encode()), (correlation, correlation_id)]
    if media_type:
        headers.append(("content-type", media_type.encode()))
    if partition is not None:
        encoded = int(partition).to_bytes(4, "big") if convention == "spring" else partition.encode()
        headers.append((partition_name, encoded))
    await producer.send_and_wait(topic, data(value), b"key", headers=headers)

    async def reply():
        async for record in consumer:
            if (correlation, correlation_id) in record.headers:
                return record

    try:
        show(await asyncio.wait_for(reply(), 5))
    except asyncio.TimeoutError:
        print("null")
    await producer.stop()
    await consumer.stop()


def show(record):
    print(json.dumps({
        "key": text(record.key), "value": text(record.value), "headers": [[name, text(value)] for name, value in record.headers],
        "partition": record.partition, "timestamp": record.timestamp, "offset": record.offset,
    }))


async def main(brokers, command, *arguments):
    if command == "create":
        await create(brokers, arguments)
    elif command == "delete":
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        await admin.delete_topics(list(arguments))
        await admin.close()
    elif command == "write":
        await write(brokers, arguments[0], [json.loads(line) for line in sys.stdin])
    elif command == "write-binary-name":
        await write_binary_name(brokers, arguments[0])
    elif command == "write-in-transaction":
        await write_in_transaction(brokers, *arguments)
    elif command == "fill":
        topic, value, count, *keys = arguments
        key = lambda number: str(number % int(keys[0])) if keys else None  # noqa: E731
        await write(brokers, topic, [{"key": key(number), "value": value.replace("#", str(number))} for number in range(int(count))])
    elif command == "read":
        for record in await read(brokers, arguments[0]):
            show(record)
    elif command == "count":
        print(len(await read(brokers, arguments[0])))
    elif command in ("committed", "serve", "ask"):
        await {"committed": committed, "serve": serve, "ask": ask}[command](brokers, *arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
