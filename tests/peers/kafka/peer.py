#!/usr/bin/env python3
"""Client operations of aiokafka, which does not use librdkafka.

    peer.py BROKERS create TOPIC[:PARTITIONS[:KEY=VALUE…]]…  creates topics with one or more partitions and settings
    peer.py BROKERS write TOPIC                     writes the records of standard input: lines of JSON as `read` prints them
    peer.py BROKERS write-binary-name TOPIC         writes a record with a header whose name is not UTF-8, and another header
    peer.py BROKERS fill TOPIC VALUE COUNT [KEYS]   writes records; `#` in VALUE is replaced by the number, whose remainder by KEYS is the key
    peer.py BROKERS read TOPIC                      prints all committed records of a topic as lines of JSON
    peer.py BROKERS count TOPIC                     prints the number of committed records of a topic
    peer.py BROKERS committed GROUP TOPIC           prints the committed offset of each partition, or null

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
    offsets = await admin.list_consumer_group_offsets(group)
    await admin.close()
    print(json.dumps({partition.partition: found.offset for partition, found in offsets.items() if partition.topic == topic}))


async def main(brokers, command, *arguments):
    if command == "create":
        await create(brokers, arguments)
    elif command == "write":
        await write(brokers, arguments[0], [json.loads(line) for line in sys.stdin])
    elif command == "write-binary-name":
        await write_binary_name(brokers, arguments[0])
    elif command == "fill":
        topic, value, count, *keys = arguments
        key = lambda number: str(number % int(keys[0])) if keys else None  # noqa: E731
        await write(brokers, topic, [{"key": key(number), "value": value.replace("#", str(number))} for number in range(int(count))])
    elif command == "read":
        for record in await read(brokers, arguments[0]):
            print(json.dumps({
                "key": text(record.key), "value": text(record.value), "headers": [[name, text(value)] for name, value in record.headers],
                "partition": record.partition, "timestamp": record.timestamp, "offset": record.offset,
            }))
    elif command == "count":
        print(len(await read(brokers, arguments[0])))
    elif command == "committed":
        await committed(brokers, *arguments)
    else:
        sys.exit(__doc__)


asyncio.run(main(*sys.argv[1:]))
