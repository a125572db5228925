//! Minimal loops over lapin as a reference, and load generators for the benchmark.
//!
//! ```text
//! bare declare URL QUEUE…                 declares durable classic queues and purges them
//! bare publish URL QUEUE COUNT SIZE       publishes persistent messages with confirms, 1 000 outstanding
//! bare bridge URL FROM TO COUNT           consumes, publishes with confirms, acknowledges; prefetch 256
//! bare serve URL QUEUE                    replies to requests with their bodies until it is killed
//! bare wait URL QUEUE COUNT               waits until a queue has that many messages
//! ```

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

const UNCONFIRMED_MAX: usize = 1_000;
const PREFETCH: u16 = 256;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [command, url, rest @ ..] = arguments.as_slice() else { return Err("usage: bare COMMAND URL …".into()) };
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    match (*command, rest) {
        ("declare", queues) => declare(&channel, queues).await,
        ("publish", [queue, count, size]) => publish(&channel, queue, count.parse()?, size.parse()?).await,
        ("bridge", [from, to, count]) => bridge(&channel, from, to, count.parse()?).await,
        ("serve", [queue]) => serve(&channel, queue).await,
        ("wait", [queue, count]) => wait(&channel, queue, count.parse()?).await,
        _ => Err(format!("unknown command or wrong arguments: `{command}`").into()),
    }
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into())
}

async fn declare(channel: &Channel, queues: &[&str]) -> Result {
    for queue in queues {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare((*queue).into(), options, FieldTable::default()).await?;
        channel.queue_purge((*queue).into(), QueuePurgeOptions::default()).await?;
    }
    Ok(())
}

async fn publish(channel: &Channel, queue: &str, count: usize, size: usize) -> Result {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let body = format!("{{\"pad\":\"{}\"}}", "x".repeat(size.saturating_sub(10)));
    let mut unconfirmed = FuturesUnordered::new();
    for _ in 0..count {
        if unconfirmed.len() >= UNCONFIRMED_MAX {
            unconfirmed.next().await.transpose()?;
        }
        let options = BasicPublishOptions::default();
        let confirm =
            channel.basic_publish(ShortString::default(), queue.into(), options, body.as_bytes(), persistent());
        unconfirmed.push(confirm.await?);
    }
    while let Some(confirmed) = unconfirmed.next().await {
        confirmed?;
    }
    Ok(())
}

async fn bridge(channel: &Channel, from: &str, to: &str, count: usize) -> Result {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let tag = ShortString::default();
    let mut consumer =
        channel.basic_consume(from.into(), tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let mut unconfirmed = FuturesUnordered::new();
    let mut done = 0;
    while done < count {
        tokio::select! {
            Some(delivery) = consumer.next() => {
                let delivery = delivery?;
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let confirm = channel
                    .basic_publish(ShortString::default(), to.into(), options, &delivery.data, persistent())
                    .await?;
                unconfirmed.push(async move {
                    confirm.await?;
                    delivery.ack(BasicAckOptions::default()).await
                });
            }
            Some(acknowledged) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                acknowledged?;
                done += 1;
            }
        }
    }
    Ok(())
}

async fn serve(channel: &Channel, queue: &str) -> Result {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let tag = ShortString::default();
    let mut consumer =
        channel.basic_consume(queue.into(), tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        if let Some(reply_to) = delivery.properties.reply_to().clone() {
            let mut properties = BasicProperties::default().with_content_type("application/json".into());
            if let Some(id) = delivery.properties.correlation_id().clone() {
                properties = properties.with_correlation_id(id);
            }
            let options = BasicPublishOptions::default();
            channel.basic_publish(ShortString::default(), reply_to, options, &delivery.data, properties).await?;
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn wait(channel: &Channel, queue: &str, count: u32) -> Result {
    loop {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        if found.message_count() >= count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
