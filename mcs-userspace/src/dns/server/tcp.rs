//! DNS over TCP (RFC 7766): each message after two bytes of its length, several on one connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::SockType;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{Shared, bound};
use crate::dns::message::Transport;

/// How long a client may be silent, or take to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; further ones wait until one ends.
const MOST: usize = 512;
/// How long to rest when no connection can be accepted: there are too many open files.
const REST: Duration = Duration::from_millis(100);

/// Listens on an address.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(bound(addr, SockType::Stream, false)?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers all connections, for ever.
pub(super) async fn serve(listener: TcpListener, zone: Shared) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let zone = zone.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &zone).await {
                        debug!(%peer, %error, "connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "accept a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Answers one connection's queries, one after the other, until its end.
async fn connection(stream: TcpStream, zone: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut query, mut response, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let mut length = [0; 2];
        match tokio::time::timeout(PATIENCE, read_exact(&stream, &mut length)).await {
            Err(_silent) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(read) => read?,
        }
        query.resize(usize::from(u16::from_be_bytes(length)), 0);
        tokio::time::timeout(PATIENCE, read_exact(&stream, &mut query)).await??;
        zone.respond(&zone.read(), &query, Transport::Tcp, &mut response);
        let Ok(length) = u16::try_from(response.len()) else { return Ok(()) };
        if length == 0 {
            // what cannot be answered will not become better
            return Ok(());
        }
        framed.clear();
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&response);
        tokio::time::timeout(PATIENCE, write_all(&stream, &framed)).await??;
    }
}

/// Fills a buffer.
async fn read_exact(stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = buffer.split_at_mut(read).1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of a buffer.
async fn write_all(stream: &TcpStream, mut buffer: &[u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.writable().await?;
        match stream.try_write(buffer) {
            Ok(written) => buffer = buffer.split_at(written).1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
