// Client and service operations of amqplib (Node) at a broker, for interoperability tests.
//
//   node amqplib.cjs URL serve QUEUE            replies to requests with their bodies
//   node amqplib.cjs URL call QUEUE BODY        sends a request with direct reply-to, and prints the body of the reply
//   node amqplib.cjs URL publish QUEUE BODY     publishes with a publisher confirm
//   node amqplib.cjs URL take QUEUE             consumes one message, and prints its body
"use strict";
const amqp = require("amqplib");

const DIRECT = "amq.rabbitmq.reply-to";

async function serve(channel, queue) {
  await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
  await channel.consume(queue, (message) => {
    const { replyTo, correlationId, contentType } = message.properties;
    channel.sendToQueue(replyTo, message.content, { correlationId, contentType });
    channel.ack(message);
  });
  console.log("serves at 127.0.0.1:1");
  await new Promise(() => {});
}

async function call(channel, queue, body) {
  const reply = new Promise((resolve) => channel.consume(DIRECT, resolve, { noAck: true }));
  channel.sendToQueue(queue, Buffer.from(body), { replyTo: DIRECT, correlationId: "n-1", contentType: "application/json" });
  const message = await reply;
  if (message.properties.correlationId !== "n-1") throw new Error("unexpected correlation id");
  console.log(message.content.toString());
}

async function publish(channel, queue, body) {
  channel.sendToQueue(queue, Buffer.from(body), { contentType: "application/json", persistent: true, mandatory: true });
  await channel.waitForConfirms();
}

async function take(channel, queue) {
  await channel.prefetch(1);
  const message = await new Promise((resolve) => channel.consume(queue, resolve));
  channel.ack(message);
  console.log(message.content.toString());
}

async function main() {
  const [url, command, ...rest] = process.argv.slice(2);
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await { serve, call, publish, take }[command](channel, ...rest);
  await channel.close();
  await connection.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
