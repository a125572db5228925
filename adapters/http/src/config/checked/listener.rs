//! Validated listeners.

use std::any::Any;
use std::net::SocketAddr;

use crossdock_ports::ListenerSpec;
use crossdock_settings::{FromNode, Node, Reader};
use crossdock_transport::{bind_address, http2};

use super::super::ListenerSettings;

/// A validated listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) bind: SocketAddr,
    pub(crate) settings: ListenerSettings,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        let bind = bind_address(&settings.bind, reader)?;
        let sizes = [
            ("head", settings.head),
            ("stream_window", settings.stream_window),
            ("connection_window", settings.connection_window),
        ];
        http2::check_sizes(sizes, node, reader)?;
        Some(Self { bind, settings })
    }
}

impl ListenerSpec for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.settings)
    }
}
