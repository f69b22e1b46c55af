//! One login of a `caching_sha2_password` account through a Unix socket, so that sqlx can log in after it.
//!
//! When the server has not cached the account's password (after its start, or FLUSH PRIVILEGES), it asks for it in
//! full. A Unix socket counts as secure, so the server then expects the password as it is; sqlx 0.9.0 sends a request
//! for an RSA key instead, which the server takes for a wrong password (error 1045). After one login done right, the
//! cache lets sqlx in. Source: MySQL's manual, "Caching SHA-2 Pluggable Authentication", and the protocol's "Connection Phase".

use sha2::{Digest, Sha256};
use std::{io, path::Path};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const PLUGIN: &[u8] = b"caching_sha2_password";
/// CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;

/// Logs in and out. `false`: the server refused, or the account has another kind of password.
pub(crate) async fn log_in(socket: &Path, user: &str, password: &str) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    let (_, greeting) = read(&mut stream).await?;
    let mut nonce = nonce_of(&greeting).ok_or_else(|| io::Error::other("the server's greeting is not one of MySQL's"))?;
    let mut response = Vec::new();
    response.extend_from_slice(&CAPABILITIES.to_le_bytes());
    response.extend_from_slice(&(1u32 << 24).to_le_bytes());
    response.push(45); // utf8mb4_general_ci
    response.extend_from_slice(&[0; 23]);
    response.extend_from_slice(user.as_bytes());
    response.push(0);
    response.push(32);
    response.extend_from_slice(&scramble(password, &nonce));
    response.extend_from_slice(PLUGIN);
    response.push(0);
    write(&mut stream, 1, &response).await?;
    loop {
        let (sequence, packet) = read(&mut stream).await?;
        match packet.as_slice() {
            [0, ..] => return Ok(true),
            // "Full authentication": the password itself, which does not leave the host.
            [1, 4] => write(&mut stream, sequence + 1, &[password.as_bytes(), &[0]].concat()).await?,
            [1, 3] => {}
            // Another plugin's turn; ours with a new nonce is the one that we know.
            [0xfe, rest @ ..] if rest.starts_with(PLUGIN) && rest.get(PLUGIN.len()) == Some(&0) => {
                let fresh = &rest[PLUGIN.len() + 1..];
                nonce = fresh.get(..20).unwrap_or(fresh).to_vec();
                write(&mut stream, sequence + 1, &scramble(password, &nonce)).await?;
            }
            _ => return Ok(false),
        }
    }
}

/// The 20 bytes of the greeting (protocol version 10) that the answer is mixed with.
fn nonce_of(greeting: &[u8]) -> Option<Vec<u8>> {
    let version = greeting.strip_prefix(&[10])?;
    let after = &version[version.iter().position(|&b| b == 0)? + 1..];
    // Thread id 4, then 8 bytes, then filler 1, capabilities 2, charset 1, status 2, capabilities 2, length 1, reserved 10.
    Some([after.get(4..12)?, after.get(31..43)?].concat())
}

/// SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce).
fn scramble(password: &str, nonce: &[u8]) -> [u8; 32] {
    let once: [u8; 32] = Sha256::digest(password).into();
    let mask: [u8; 32] = Sha256::new().chain_update(Sha256::digest(once)).chain_update(nonce).finalize().into();
    std::array::from_fn(|i| once[i] ^ mask[i])
}

async fn read(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let len = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
    let mut packet = vec![0; len];
    stream.read_exact(&mut packet).await?;
    Ok((header[3], packet))
}

async fn write(stream: &mut UnixStream, sequence: u8, packet: &[u8]) -> io::Result<()> {
    let mut bytes = (packet.len() as u32).to_le_bytes().to_vec();
    bytes[3] = sequence;
    bytes.extend_from_slice(packet);
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_is_in_two_parts() {
        let mut greeting = vec![10];
        greeting.extend_from_slice(b"9.7.4\0");
        greeting.extend_from_slice(&[1, 0, 0, 0]);
        greeting.extend_from_slice(b"abcdefgh\0");
        greeting.extend_from_slice(&[0xff, 0xff, 45, 2, 0, 0xff, 0xff, 21]);
        greeting.extend_from_slice(&[0; 10]);
        greeting.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        assert_eq!(nonce_of(&greeting).unwrap(), b"abcdefghijklmnopqrst");
        assert_eq!(nonce_of(&greeting[..30]), None);
        assert_eq!(nonce_of(b"\x0a"), None);
    }
}
