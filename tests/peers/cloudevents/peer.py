#!/usr/bin/env python3
"""Events of the CloudEvents SDK for Python over four protocols, and Google's protobuf for the event format that the SDK lacks.

    peer.py serve http LOG                           receives events until it is killed, and appends each to LOG
    peer.py serve grpc LOG
    peer.py send http ADDRESS PATH MODE              sends the event of standard input
    peer.py send grpc ADDRESS METHOD MODE
    peer.py send amqp URL QUEUE MODE
    peer.py send kafka BROKERS TOPIC MODE
    peer.py read amqp URL QUEUE                      prints the next event of a queue
    peer.py read kafka BROKERS TOPIC                 prints the last event of a topic

MODE is `binary` or `structured`. An event is a line of JSON: {"attributes", "data"}; received ones have the `mode`, too, and the `body` as received.
Data is JSON if the attribute `datacontenttype` says so; otherwise text, or `hex:…` for bytes.
"""

import concurrent.futures
import datetime
import http.client
import http.server
import json
import sys
import threading
import time

import confluent_kafka
import grpc
import pika
from cloudevents.core.bindings import http as http_binding
from cloudevents.core.bindings import kafka as kafka_binding
from cloudevents.core.bindings import rabbitmq as amqp_binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

FORMAT = JSONFormat()
MEDIA_TYPE = "application/cloudevents+json"


def proto_event():
    """The message class `io.cloudevents.v1.CloudEvent`, from its field names, numbers and types."""
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="events.proto", package="io.cloudevents.v1", syntax="proto3")
    file.dependency.extend(["google/protobuf/any.proto", "google/protobuf/timestamp.proto"])
    event = file.message_type.add(name="CloudEvent")
    kinds = descriptor_pb2.FieldDescriptorProto

    def field(message, name, number, kind, type_name=None, oneof=None, label=kinds.LABEL_OPTIONAL):
        message.field.add(name=name, number=number, type=kind, label=label, type_name=type_name, oneof_index=oneof)

    for number, name in enumerate(["id", "source", "spec_version", "type"], 1):
        field(event, name, number, kinds.TYPE_STRING)
    field(event, "attributes", 5, kinds.TYPE_MESSAGE, ".io.cloudevents.v1.CloudEvent.AttributesEntry", label=kinds.LABEL_REPEATED)
    event.oneof_decl.add(name="data")
    field(event, "binary_data", 6, kinds.TYPE_BYTES, oneof=0)
    field(event, "text_data", 7, kinds.TYPE_STRING, oneof=0)
    field(event, "proto_data", 8, kinds.TYPE_MESSAGE, ".google.protobuf.Any", oneof=0)
    entry = event.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, kinds.TYPE_STRING)
    value_type = ".io.cloudevents.v1.CloudEvent.CloudEventAttributeValue"
    field(entry, "value", 2, kinds.TYPE_MESSAGE, value_type)
    value = event.nested_type.add(name="CloudEventAttributeValue")
    value.oneof_decl.add(name="attr")
    for number, (name, kind) in enumerate([("ce_boolean", kinds.TYPE_BOOL), ("ce_integer", kinds.TYPE_INT32), ("ce_string", kinds.TYPE_STRING),
                                           ("ce_bytes", kinds.TYPE_BYTES), ("ce_uri", kinds.TYPE_STRING), ("ce_uri_ref", kinds.TYPE_STRING)], 1):
        field(value, name, number, kind, oneof=0)
    field(value, "ce_timestamp", 7, kinds.TYPE_MESSAGE, ".google.protobuf.Timestamp", oneof=0)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.cloudevents.v1.CloudEvent"))


ProtoEvent = proto_event()


def is_json(attributes):
    return "json" in attributes.get("datacontenttype", "")


def parse(line):
    """An event of the SDK."""
    given = json.loads(line)
    attributes, data = given["attributes"], given.get("data")
    if "time" in attributes:
        attributes["time"] = datetime.datetime.fromisoformat(attributes["time"])
    if isinstance(data, str) and data.startswith("hex:"):
        data = bytes.fromhex(data[4:])
    return CloudEvent(attributes={"specversion": "1.0", **attributes}, data=data)


def show(event, mode, body):
    attributes = {name: value.isoformat() if isinstance(value, datetime.datetime) else value for name, value in event.get_attributes().items()}
    data = event.get_data()
    if isinstance(data, (bytes, bytearray)):
        # The SDK leaves open whether no data is none or empty.
        data = None if not data else show_bytes(data)
    return json.dumps({"attributes": attributes, "data": data or None, "mode": mode, "body": show_bytes(body)})


def show_bytes(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "hex:" + data.hex()


def to_proto(event):
    message = ProtoEvent(id=event.get_id(), source=event.get_source(), spec_version="1.0", type=event.get_type())
    for name, value in event.get_attributes().items():
        if name in ("id", "source", "type", "specversion"):
            continue
        attribute = message.attributes[name]
        if isinstance(value, bool):
            attribute.ce_boolean = value
        elif isinstance(value, int):
            attribute.ce_integer = value
        elif isinstance(value, datetime.datetime):
            attribute.ce_timestamp.FromDatetime(value)
        else:
            attribute.ce_string = str(value)
    data = event.get_data()
    if isinstance(data, bytes):
        message.binary_data = data
    elif data is not None:
        message.text_data = json.dumps(data, ensure_ascii=False) if is_json(event.get_attributes()) else data
    return message.SerializeToString()


def from_proto(body):
    message = ProtoEvent.FromString(body)
    attributes = {"id": message.id, "source": message.source, "specversion": message.spec_version, "type": message.type}
    for name, value in message.attributes.items():
        kind = value.WhichOneof("attr")
        found = getattr(value, kind)
        attributes[name] = found.ToDatetime(datetime.timezone.utc) if kind == "ce_timestamp" else found
    kind = message.WhichOneof("data")
    data = None if kind is None else getattr(message, kind)
    if kind == "text_data" and is_json(attributes):
        data = json.loads(data)
    return CloudEvent(attributes=attributes, data=data)


def mode_of(content_type):
    return "structured" if (content_type or "").startswith("application/cloudevents") else "binary"


def http_message(headers, body):
    headers = {name.lower(): value for name, value in headers.items() if name.lower().startswith("ce-") or name.lower() == "content-type"}
    message = http_binding.HTTPMessage(headers=headers, body=body)
    return show(http_binding.from_http(message, FORMAT), mode_of(headers.get("content-type")), body)


def grpc_message(metadata, body):
    headers = {name: value for name, value in metadata if name.startswith("ce-")}
    if not headers:
        return show(from_proto(body), "structured", body)
    return show(http_binding.from_binary(http_binding.HTTPMessage(headers=headers, body=body), FORMAT), "binary", body)


def serve(protocol, log):
    lock = threading.Lock()

    def append(line):
        with lock, open(log, "a") as file:
            file.write(line + "\n")

    class Http(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            append(http_message(dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Grpc(grpc.GenericRpcHandler):
        def service(self, details):
            def handle(body, _):
                append(grpc_message(details.invocation_metadata, body))
                return b""
            return grpc.unary_unary_rpc_method_handler(handle, request_deserializer=lambda body: body, response_serializer=lambda body: body)

    if protocol == "http":
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Http)
        print(f"serves at 127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Grpc()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"serves at 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def send(protocol, address, target, mode):
    event = parse(sys.stdin.read())
    if protocol == "http":
        message = (http_binding.to_binary if mode == "binary" else http_binding.to_structured)(event, FORMAT)
        connection = http.client.HTTPConnection(address)
        connection.request("POST", target, message.body, message.headers)
        response = connection.getresponse()
        print(response.status, response.read().decode())
    elif protocol == "grpc":
        metadata, body = (), to_proto(event)
        if mode == "binary":
            message = http_binding.to_binary(event, FORMAT)
            metadata = [(name.lower(), value) for name, value in message.headers.items() if name.lower().startswith("ce-")]
            body = message.body
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(target, request_serializer=lambda body: body, response_deserializer=lambda body: body)
            try:
                call(body, timeout=10, metadata=metadata)
                print(200)
            except grpc.RpcError as error:
                print(error.code().name, error.details())
    elif protocol == "amqp":
        message = (amqp_binding.to_binary if mode == "binary" else amqp_binding.to_structured)(event, FORMAT)
        connection = pika.BlockingConnection(pika.URLParameters(address))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", target, message.body, pika.BasicProperties(content_type=message.content_type, headers=message.headers), mandatory=True)
        connection.close()
        print(200)
    else:
        message = (kafka_binding.to_binary if mode == "binary" else kafka_binding.to_structured)(event, FORMAT)
        producer = confluent_kafka.Producer({"bootstrap.servers": address})
        producer.produce(target, message.value or None, message.key, headers=dict(message.headers))
        producer.flush(10)
        print(200)


def read(protocol, address, target):
    if protocol == "amqp":
        connection = pika.BlockingConnection(pika.URLParameters(address))
        until = time.monotonic() + 10
        while time.monotonic() < until:
            frame, properties, body = connection.channel().basic_get(target, auto_ack=True)
            if frame:
                message = amqp_binding.RabbitMQMessage(properties.headers, properties.content_type, body)
                print(show(amqp_binding.from_rabbitmq(message, FORMAT), mode_of(properties.content_type), body))
                break
            time.sleep(0.02)
        connection.close()
        return
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": "none", "enable.auto.commit": False})
    _, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(target, 0), timeout=10)
    consumer.assign([confluent_kafka.TopicPartition(target, 0, high - 1)])
    record = consumer.poll(10)
    headers = dict(record.headers() or [])
    content_type = headers.get("content-type", b"").decode()
    message = kafka_binding.KafkaMessage(headers, record.key(), record.value() or b"")
    shown = json.loads(show(kafka_binding.from_kafka(message, FORMAT), mode_of(content_type), record.value() or b""))
    shown["key"], shown["is_null"] = record.key() and record.key().decode(), record.value() is None
    print(json.dumps(shown))
    consumer.close()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"serve": serve, "send": send, "read": read}[command](*arguments)
