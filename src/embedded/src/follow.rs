//! Tells the requests of this instance what became of them.

use std::sync::Arc;

use crossdock_cluster::{Notice, Subscription};
use crossdock_coordination::Event;

use crate::engine::Shared;

pub(crate) async fn follow(shared: Arc<Shared>, mut subscription: Subscription<Event>) {
    loop {
        match subscription.next().await {
            Notice::Events(_, events) => {
                for event in events.iter() {
                    shared.requests.handle(event);
                    shared.sessions.handle(event);
                    shared.generations.handle(event);
                }
                shared.queues.handle(&shared, &events);
                shared.watches.handle(&events);
            }
            Notice::Restored(_) | Notice::Missed => {
                let view = shared.replica.view();
                shared.requests.compare(&view);
                shared.sessions.compare(&view);
                shared.queues.compare(&shared);
                shared.generations.changed();
                shared.watches.miss();
            }
            Notice::Role(_) => {}
            Notice::Ended => {
                shared.requests.end_all();
                shared.sessions.end();
                shared.queues.end_all();
                shared.watches.miss();
                return;
            }
        }
    }
}
