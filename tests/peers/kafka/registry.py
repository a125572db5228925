#!/usr/bin/env python3
"""Values with schemas of a registry: the client and the framing of Confluent's library for Python, with fastavro, Google's protobuf and jsonschema, over aiokafka.

    registry.py BROKERS REGISTRY register SUBJECT TYPE [NAME=SUBJECT…]   registers the schema of standard input; prints its number
    registry.py BROKERS REGISTRY write TOPIC TYPE [MESSAGE]             writes values: lines of JSON, by the newest schema of the subject TOPIC-value
    registry.py BROKERS REGISTRY read TOPIC TYPE                        prints all values of a topic as lines of JSON

TYPE is AVRO, PROTOBUF or JSON, MESSAGE the full name of a message. References are to the newest version of a subject. In JSON, numbers with a fraction are
decimals unless their schema says otherwise, and the field `at` is a time.
"""

import asyncio
import datetime
import decimal
import io
import json
import sys

import fastavro
from aiokafka import AIOKafkaProducer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.common.protobuf import PROTOBUF_TYPE, _create_index_array
from confluent_kafka.schema_registry.common.serde import SchemaId
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from peer import read

# What tests/tests/kafka_registry.rs registers, as Python needs it.
PROTO = descriptor_pb2.FileDescriptorProto(
    name="shop.proto", package="shop", syntax="proto3",
    message_type=[
        descriptor_pb2.DescriptorProto(name="Order", field=[dict(name="id", number=1, type=3, label=1, json_name="id")]),
        descriptor_pb2.DescriptorProto(
            name="Note",
            field=[dict(name="text", number=1, type=9, label=1, json_name="text"),
                   dict(name="line", number=2, type=11, label=1, type_name=".shop.Note.Line", json_name="line")],
            nested_type=[descriptor_pb2.DescriptorProto(
                name="Line", field=[dict(name="number", number=1, type=3, label=1, json_name="number")])]),
    ])


def message_class(name):
    pool = descriptor_pool.DescriptorPool()
    pool.Add(PROTO)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def from_json(line):
    value = json.loads(line, parse_float=decimal.Decimal)
    if "at" in value:
        value["at"] = datetime.datetime.fromisoformat(value["at"])
    return value


def to_json(value):
    def other(value):
        if isinstance(value, datetime.datetime):
            return value.isoformat()
        return value.hex() if isinstance(value, bytes) else str(value)

    return json.dumps(value, default=other)


async def write(brokers, topic, values):
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all")
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value)
    await producer.stop()


def avro(client, schema):
    """A schema of Avro with those that it refers to."""
    named = {}
    for reference in schema.references or []:
        other = client.get_version(reference.subject, reference.version).schema
        fastavro.parse_schema(json.loads(other.schema_str), named)
    return fastavro.parse_schema(json.loads(schema.schema_str), named)


def write_avro(client, newest, value):
    out = io.BytesIO(SchemaId("AVRO", newest.schema_id, None).id_to_bytes())
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, avro(client, newest.schema), value)
    return out.getvalue()


def read_avro(client, value):
    number = SchemaId("AVRO")
    rest = number.from_bytes(io.BytesIO(value))
    return fastavro.schemaless_reader(rest, avro(client, client.get_schema(number.id)))


def write_protobuf(newest, name, line):
    of_type = message_class(name)
    number = SchemaId(PROTOBUF_TYPE, newest.schema_id, None, _create_index_array(of_type.DESCRIPTOR))
    return number.id_to_bytes() + json_format.Parse(line, of_type()).SerializeToString()


def read_protobuf(value):
    number = SchemaId(PROTOBUF_TYPE)
    rest = number.from_bytes(io.BytesIO(value))
    message = PROTO.message_type[number.message_indexes[0]]
    return json_format.MessageToDict(message_class(f"shop.{message.name}").FromString(rest.read()))


def main():
    brokers, registry, command, *arguments = sys.argv[1:]
    client = SchemaRegistryClient({"url": registry})
    if command == "register":
        subject, kind, *references = arguments
        pairs = [reference.split("=") for reference in references]
        references = [SchemaReference(name, of, client.get_latest_version(of).version) for name, of in pairs]
        print(client.register_schema(subject, Schema(sys.stdin.read(), kind, references)))
        return
    topic, kind, *message = arguments
    if command == "write":
        newest = client.get_latest_version(f"{topic}-value")
        if kind == "JSON":
            serializer = JSONSerializer(newest.schema, client, conf={"auto.register.schemas": False, "use.latest.version": True})
            values = [serializer(json.loads(line), SerializationContext(topic, MessageField.VALUE)) for line in sys.stdin]
        elif kind == "AVRO":
            values = [write_avro(client, newest, from_json(line)) for line in sys.stdin]
        else:
            values = [write_protobuf(newest, message[0], line) for line in sys.stdin]
        asyncio.run(write(brokers, topic, values))
    elif command == "read":
        records = asyncio.run(read(brokers, topic))
        if kind == "JSON":
            deserializer = JSONDeserializer(None, schema_registry_client=client)
            for record in records:
                print(to_json(deserializer(record.value, SerializationContext(topic, MessageField.VALUE))))
            return
        for record in records:
            print(to_json(read_avro(client, record.value) if kind == "AVRO" else read_protobuf(record.value)))
    else:
        sys.exit(f"unknown command: {command}")


if __name__ == "__main__":
    main()
