#!/usr/bin/env python3
"""Client and service operations of aio-pika at a broker, for interoperability tests.

    aio.py URL serve QUEUE            replies to requests with their bodies
    aio.py URL call QUEUE BODY        sends a request with an exclusive reply queue, and prints the body of the reply
    aio.py URL publish QUEUE BODY     publishes with a publisher confirm
    aio.py URL take QUEUE             consumes one message, and prints its body
"""

import asyncio
import sys

import aio_pika

TIMEOUT_S = 20


async def serve(channel, queue):
    requests = await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
    print("serves at 127.0.0.1:1", flush=True)
    async with requests.iterator() as messages:
        async for message in messages:
            async with message.process():
                reply = aio_pika.Message(message.body, correlation_id=message.correlation_id, content_type=message.content_type)
                await channel.default_exchange.publish(reply, message.reply_to)


async def call(channel, queue, body):
    replies = await channel.declare_queue(exclusive=True)
    request = aio_pika.Message(body.encode(), reply_to=replies.name, correlation_id="a-1", content_type="application/json")
    await channel.default_exchange.publish(request, queue)
    async with replies.iterator(timeout=TIMEOUT_S) as messages:
        async for message in messages:
            assert message.correlation_id == "a-1", message.correlation_id
            print(message.body.decode())
            return


async def publish(channel, queue, body):
    message = aio_pika.Message(body.encode(), content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, queue, mandatory=True)


async def take(channel, queue):
    source = await channel.get_queue(queue)
    message = await source.get(timeout=TIMEOUT_S)
    await message.ack()
    print(message.body.decode())


async def main():
    url, command, *arguments = sys.argv[1:]
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        await {"serve": serve, "call": call, "publish": publish, "take": take}[command](channel, *arguments)


asyncio.run(main())
