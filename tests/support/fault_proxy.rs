//! A TCP proxy that does to a connection what bad networks do: cuts, stalls, slows or garbles it, on command or after
//! some bytes.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// From whoever connected.
    Server,
    /// From the server.
    Client,
}

/// What is done to the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Connections are closed; new ones, too, as soon as they are made.
    Cut,
    /// Nothing comes through any more, and nothing ends.
    Stall,
    /// At most so many bytes a second, each way.
    Slow(u64),
    /// Bits are flipped.
    Garble,
}

/// The proxy. Ends when dropped, with all its connections.
pub struct FaultProxy {
    shared: Arc<Shared>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    server: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In force now.
    fault: Option<Fault>,
    /// Comes into force when so many bytes have gone that way.
    later: Option<(Towards, u64, Fault)>,
    towards_server: u64,
    towards_client: u64,
    connections: u64,
    open: Vec<TcpStream>,
    over: bool,
}

impl FaultProxy {
    /// In front of a port of this machine; at first it does nothing but pass bytes on.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { server, state: Mutex::default(), changed: Condvar::new() });
        let for_thread = shared.clone();
        let listener = std::thread::spawn(move || accept(&for_thread, &listener));
        Self { shared, port, listener: Some(listener) }
    }

    /// From now on this.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state.lock().unwrap();
        state.fault = Some(fault);
        if fault == Fault::Cut {
            state.cut();
        }
        self.shared.changed.notify_all();
    }

    /// Closes all connections, and new ones at once.
    pub fn cut(&self) {
        self.set(Fault::Cut);
    }

    /// Lets nothing through, without closing anything.
    pub fn stall(&self) {
        self.set(Fault::Stall);
    }

    /// This, once so many bytes from now on have gone that way.
    pub fn after(&self, towards: Towards, bytes: u64, fault: Fault) {
        let mut state = self.shared.state.lock().unwrap();
        let gone = state.gone(towards);
        state.later = Some((towards, gone + bytes, fault));
    }

    /// Passes bytes on again; what was held back comes through.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.fault = None;
        state.later = None;
        self.shared.changed.notify_all();
    }

    /// Bytes that have gone through so far: towards the server, towards the client.
    pub fn bytes(&self) -> (u64, u64) {
        let state = self.shared.state.lock().unwrap();
        (state.towards_server, state.towards_client)
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.state.lock().unwrap().connections
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock().unwrap();
            state.over = true;
            state.cut();
            self.shared.changed.notify_all();
        }
        // The listener looks up from its wait.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl State {
    fn gone(&self, towards: Towards) -> u64 {
        match towards {
            Towards::Server => self.towards_server,
            Towards::Client => self.towards_client,
        }
    }

    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut pumps = Vec::new();
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let mut state = shared.state.lock().unwrap();
        if state.over {
            break;
        }
        state.connections += 1;
        if state.fault == Some(Fault::Cut) {
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server)) else { continue };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            state.open.push(stream.try_clone().unwrap());
        }
        drop(state);
        let ways = [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), Towards::Server),
            (server, client, Towards::Client),
        ];
        for (from, to, towards) in ways {
            let shared = shared.clone();
            pumps.push(std::thread::spawn(move || pump(&shared, from, to, towards)));
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, towards: Towards) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let mut rest = &mut bytes[..len];
        while !rest.is_empty() {
            let Some(piece) = shared.let_through(towards, rest) else { return };
            if to.write_all(&rest[..piece]).is_err() {
                return;
            }
            rest = &mut rest[piece..];
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Shared {
    /// Waits until some of these bytes may go on, and does to them what is to be done; how many, or `None` at the end.
    fn let_through(&self, towards: Towards, bytes: &mut [u8]) -> Option<usize> {
        let mut state = self.state.lock().unwrap();
        loop {
            if state.over {
                return None;
            }
            let mut most = bytes.len();
            if let Some((way, at, fault)) = state.later
                && way == towards
            {
                let left = usize::try_from(at.saturating_sub(state.gone(towards))).unwrap_or(usize::MAX);
                most = most.min(left);
                if left == 0 {
                    state.later = None;
                    state.fault = Some(fault);
                    if fault == Fault::Cut {
                        state.cut();
                    }
                    self.changed.notify_all();
                    continue;
                }
            }
            match state.fault {
                Some(Fault::Cut) => return None,
                Some(Fault::Stall) => {
                    state = self.changed.wait(state).unwrap();
                    continue;
                }
                Some(Fault::Garble) => bytes[..most].iter_mut().for_each(|byte| *byte ^= 0x55),
                Some(Fault::Slow(rate)) => {
                    most = most.min(usize::try_from(rate / 50).unwrap_or(1).max(1));
                    let pause = Duration::from_secs_f64(most as f64 / rate.max(1) as f64);
                    state = self.changed.wait_timeout(state, pause).unwrap().0;
                }
                None => {}
            }
            match towards {
                Towards::Server => state.towards_server += most as u64,
                Towards::Client => state.towards_client += most as u64,
            }
            return Some(most);
        }
    }
}
