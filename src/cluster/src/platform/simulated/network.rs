//! Connections between simulated instances.

#![expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    clippy::unused_async,
    reason = "the same functions as those of a real system"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::context::{Context, current};
use super::pipe::{Found, Pipe, Sent};
use super::world::State;
use crate::platform::seeded::Random;

/// Where an instance listens.
struct Listening {
    server: u64,
    run: u64,
    /// Connections that are not accepted yet: the pipes to read from and to write to, and the address of the peer.
    queue: VecDeque<(u64, u64, SocketAddr)>,
    waker: Option<Waker>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Network {
    listening: BTreeMap<SocketAddr, Listening>,
    pipes: BTreeMap<u64, Pipe>,
    next: u64,
    /// What one server sends does not reach another.
    cut: BTreeSet<(u64, u64)>,
    /// Maximum latency in milliseconds.
    pub(super) latency: u64,
}

impl Network {
    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Connects everything again.
    pub(super) fn heal(&mut self, now: u64) {
        let healed = std::mem::take(&mut self.cut);
        let mut refused = Vec::new();
        for pipe in self.pipes.values_mut().filter(|pipe| healed.contains(&(pipe.from, pipe.to))) {
            pipe.release(now + 1);
            if pipe.has_no_reader && pipe.is_sending() {
                refused.push(pipe.back);
            }
        }
        for back in refused {
            self.reset(back, now + 2);
        }
    }

    /// Resets a connection by one of its directions, as what the other one has brought is refused.
    fn reset(&mut self, back: u64, arrival: u64) {
        if let Some(pipe) = self.pipes.get_mut(&back) {
            pipe.reset(arrival);
        }
    }

    /// Breaks the connections between two servers.
    pub(super) fn break_off(&mut self, one: u64, other: u64) {
        let is_between = |pipe: &&mut Pipe| [(one, other), (other, one)].contains(&(pipe.from, pipe.to));
        for pipe in self.pipes.values_mut().filter(is_between) {
            pipe.break_off();
        }
    }

    /// The process of a server has ended. Unless its machine has no power, what it has sent still arrives, and then the end of
    /// its connections.
    pub(super) fn crashed(&mut self, server: u64, is_silent: bool, now: u64, random: &mut Random) {
        self.listening.retain(|_, listening| listening.server != server);
        if is_silent {
            return;
        }
        for pipe in self.pipes.values_mut().filter(|pipe| pipe.from == server) {
            let arrival = now + random.below(self.latency + 1);
            if random.one_in(2) { pipe.end(arrival) } else { pipe.reset(arrival) }
        }
        self.forget_readers(server);
    }

    /// A server starts: what still arrives on connections before is refused.
    pub(super) fn started(&mut self, server: u64) {
        self.forget_readers(server);
    }

    fn forget_readers(&mut self, server: u64) {
        for pipe in self.pipes.values_mut().filter(|pipe| pipe.to == server) {
            pipe.has_no_reader = true;
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    context: Context,
}

/// The same: there is no other runtime.
pub(crate) type Bound = Listener;

impl Drop for Listener {
    fn drop(&mut self) {
        let listening = &mut self.context.world.lock().network.listening;
        if listening.get(&self.address).is_some_and(|listening| listening.run == self.context.run) {
            listening.remove(&self.address);
        }
    }
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<Bound> {
    let context = current();
    let (server, run) = (context.server, context.run);
    let listening = Listening { server, run, queue: VecDeque::new(), waker: None };
    context.world.lock().network.listening.insert(address, listening);
    Ok(Listener { address, context })
}

pub(crate) fn accept_from(bound: Bound) -> io::Result<Listener> {
    Ok(bound)
}

impl Listener {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accepted = poll_fn(|cx| {
            let mut state = self.context.world.lock();
            let Some(listening) = state.network.listening.get_mut(&self.address) else { return Poll::Pending };
            match listening.queue.pop_front() {
                Some(accepted) => Poll::Ready(accepted),
                None => {
                    listening.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        let (reads, writes, peer) = accepted.await;
        Ok((Stream { context: self.context.clone(), reads, writes, peer, sleep: None }, peer))
    }
}

/// Opens a connection.
pub(crate) async fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Stream> {
    let context = current();
    let latency = context.world.lock().draw_latency();
    tokio::time::sleep(Duration::from_millis(latency)).await;
    let own = SocketAddr::new(from.unwrap_or(to.ip()), 0);
    let opened = {
        let mut state = context.world.lock();
        let network = &mut state.network;
        let server = context.server;
        match network.listening.get(&to).map(|listening| listening.server) {
            None => Err(io::ErrorKind::ConnectionRefused.into()),
            Some(peer) if network.is_cut(server, peer) || network.is_cut(peer, server) => Ok(None),
            Some(peer) => {
                let (here, there) = (network.next, network.next + 1);
                network.next += 2;
                network.pipes.insert(here, Pipe::new(peer, server, there));
                network.pipes.insert(there, Pipe::new(server, peer, here));
                if let Some(listening) = network.listening.get_mut(&to) {
                    listening.queue.push_back((there, here, own));
                    listening.waker.take().inspect(Waker::wake_by_ref);
                }
                Ok(Some((here, there)))
            }
        }
    };
    match opened {
        Ok(Some((reads, writes))) => Ok(Stream { context, reads, writes, peer: to, sleep: None }),
        // Nothing answers.
        Ok(None) => std::future::pending().await,
        Err(error) => Err(error),
    }
}

pub(crate) async fn connect_to_host(_: &str, _: u16) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Context,
    reads: u64,
    writes: u64,
    peer: SocketAddr,
    /// Until something arrives.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(crate) fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let now = self.context.world.now();
            let found = {
                let mut state = self.context.world.lock();
                if !state.is_alive(&self.context) {
                    return Poll::Pending;
                }
                let State { random, network: Network { pipes, cut, .. }, .. } = &mut *state;
                let Some(pipe) = pipes.get_mut(&self.reads) else { return Poll::Ready(Ok(())) };
                let is_cut = cut.contains(&(pipe.from, pipe.to));
                // Frames may arrive in any pieces.
                let most = if random.one_in(8) { 1 + random.index(64) } else { usize::MAX };
                pipe.read(now, most.min(buffer.remaining()), is_cut, cx.waker())
            };
            match found {
                Found::Bytes(bytes) => {
                    buffer.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Found::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Found::Nothing => return Poll::Pending,
                Found::Later(at) => {
                    let mut sleep = Box::pin(tokio::time::sleep_until(self.context.world.instant(at)));
                    let is_over = sleep.as_mut().poll(cx).is_ready();
                    self.sleep = Some(sleep);
                    if !is_over {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = self.context.world.now();
        let mut state = self.context.world.lock();
        if !state.is_alive(&self.context) {
            return Poll::Pending;
        }
        let arrival = now + state.draw_latency();
        let Some(pipe) = state.network.pipes.get_mut(&self.writes) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match pipe.write(bytes, arrival, cx.waker()) {
            Sent::Reset => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Sent::Full => Poll::Pending,
            Sent::Some(len) => {
                let (route, back, is_refused) = ((pipe.from, pipe.to), pipe.back, pipe.has_no_reader);
                if is_refused && !state.network.cut.contains(&route) {
                    state.network.reset(back, arrival + 1);
                }
                state.note(now, &format!("{route:?}"), &bytes[..len]);
                Poll::Ready(Ok(len))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    /// Ends the connection, unless its instance has crashed: then it depends on how.
    fn drop(&mut self) {
        let now = self.context.world.now();
        let mut state = self.context.world.lock();
        if !state.is_alive(&self.context) {
            return;
        }
        if let Some(pipe) = state.network.pipes.get_mut(&self.writes) {
            pipe.end(now + 1);
        }
        if let Some(pipe) = state.network.pipes.get_mut(&self.reads) {
            pipe.has_no_reader = true;
        }
    }
}
