//! Sockets, TLS, and the kinds of password that sqlx knows too: a server that it can reach can be reached here.

use super::{Wire, WireError};
use crate::server::{CONNECT_TIMEOUT, ServerConfig, Tls, TlsMode};
use rsa::{Oaep, PublicKey, pkcs8::DecodePublicKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use secrecy::ExposeSecret;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::Arc,
};

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
/// utf8mb4_general_ci, which every version knows.
const CHARSET: u8 = 45;
/// The largest row that a server can send.
const MAX_PACKET: u32 = 1 << 30;

/// A connection, encrypted or not.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// The socket below a connection.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(super) fn shut_down(&self) {
        // It may be gone already.
        drop(match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Both),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Both),
        });
    }
}

impl Stream {
    pub(super) fn open(config: &ServerConfig) -> io::Result<Self> {
        if let Some(path) = &config.socket {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            return Ok(Self::Unix(socket));
        }
        let mut error = io::Error::other(format!("{} has no address", config.host));
        for address in (config.host.as_str(), config.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
                    return Ok(Self::Tcp(socket));
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// From now on an answer may take as long as it takes.
    pub(super) fn set_patient(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(None),
            Self::Tcp(socket) => socket.set_read_timeout(None),
            Self::Tls(tls) => tls.sock.set_read_timeout(None),
        }
    }

    pub(super) fn stopper(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Unix(socket) => Socket::Unix(socket.try_clone()?),
            Self::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Self::Tls(tls) => Socket::Tcp(tls.sock.try_clone()?),
        })
    }

    /// Whether a password may be sent as it is: the socket does not leave the host.
    fn is_secret(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// Encrypts the connection from here on.
    fn encrypt(&mut self, config: &ServerConfig) -> io::Result<()> {
        let Self::Tcp(socket) = self else { return Ok(()) };
        let socket = socket.try_clone()?;
        let name = ServerName::try_from(config.host.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(client_config(&config.tls)?), name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        *self = Self::Tls(Box::new(tls));
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buf),
            Self::Tcp(socket) => socket.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(buf),
            Self::Tcp(socket) => socket.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.flush(),
            Self::Tcp(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Wire {
    pub(super) fn log_in(&mut self, config: &ServerConfig) -> Result<(), WireError> {
        let (start, end) = self.packet()?;
        let packet = self.buffer[start..end].to_vec();
        if packet[0] == 0xff {
            return Err(WireError::of(&packet));
        }
        let greeting = Greeting::read(&packet).ok_or_else(|| io::Error::other("the server's greeting is not one of MySQL's"))?;
        self.id = u64::from(greeting.id);
        let mut capabilities = LONG_PASSWORD | LONG_FLAG | CONNECT_WITH_DB | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
        let wanted = if matches!(self.stream, Stream::Unix(_)) { TlsMode::Disabled } else { config.tls.mode };
        match (wanted, greeting.capabilities & SSL != 0) {
            (TlsMode::Disabled, _) | (TlsMode::Preferred, false) => {}
            (_, true) => {
                capabilities |= SSL;
                self.send(&opening(capabilities))?;
                self.stream.encrypt(config)?;
            }
            (_, false) => return Err(io::Error::other("the server does not support TLS").into()),
        }
        let password = config.password.as_ref().map_or("", |p| p.expose_secret());
        let (mut plugin, mut nonce) = (greeting.plugin, greeting.nonce);
        let answer = answer(&plugin, &nonce, password, self.stream.is_secret());
        let mut response = opening(capabilities);
        response.extend_from_slice(config.user.as_bytes());
        response.push(0);
        response.push(answer.len() as u8);
        response.extend_from_slice(&answer);
        response.extend_from_slice(config.schema.as_bytes());
        response.push(0);
        response.extend_from_slice(plugin.as_bytes());
        response.push(0);
        self.send(&response)?;
        loop {
            let (start, end) = self.packet()?;
            let packet = self.buffer[start..end].to_vec();
            match packet.as_slice() {
                [0, ..] => return Ok(()),
                [0xff, ..] => return Err(WireError::of(&packet)),
                [0xfe, rest @ ..] if !rest.is_empty() => {
                    let mut parts = rest.splitn(2, |&b| b == 0);
                    plugin = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                    let fresh = parts.next().unwrap_or_default();
                    nonce = fresh.strip_suffix(&[0]).unwrap_or(fresh).to_vec();
                    if !KNOWN.contains(&plugin.as_str()) {
                        let text = format!("the account's kind of password, {plugin}, is not supported");
                        return Err(io::Error::new(io::ErrorKind::Unsupported, text).into());
                    }
                    let answer = self::answer(&plugin, &nonce, password, self.stream.is_secret());
                    self.send(&answer)?;
                }
                // caching_sha2_password: it was in the cache; the end of the login follows.
                [1, 3] => {}
                // It was not: the password itself is wanted.
                [1, 4] if self.stream.is_secret() => self.send(&[password.as_bytes(), &[0]].concat())?,
                [1, 4] => self.send(&[2])?,
                // The server's public key.
                [1, key @ ..] if key.starts_with(b"-----BEGIN") => {
                    let secret = encrypted(key, password, &nonce)?;
                    self.send(&secret)?;
                }
                _ => return Err(io::Error::other("the server asks for what we do not know").into()),
            }
        }
    }
}

/// Kinds of passwords that we can answer for.
const KNOWN: &[&str] = &["mysql_native_password", "caching_sha2_password", "sha256_password"];

/// The first bytes of the client's answer, which are all of a request for TLS.
fn opening(capabilities: u32) -> Vec<u8> {
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend_from_slice(&MAX_PACKET.to_le_bytes());
    packet.push(CHARSET);
    packet.extend_from_slice(&[0; 23]);
    packet
}

/// What the server says first.
struct Greeting {
    id: u32,
    nonce: Vec<u8>,
    capabilities: u32,
    plugin: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Option<Self> {
        let version = packet.strip_prefix(&[10])?;
        let after = &version[version.iter().position(|&b| b == 0)? + 1..];
        // Thread id 4, then 8 bytes, then filler 1, capabilities 2, charset 1, status 2, capabilities 2, length 1, reserved 10.
        let nonce = [after.get(4..12)?, after.get(31..43)?].concat();
        let plugin = after.get(44..).unwrap_or_default().split(|&b| b == 0).next().unwrap_or_default();
        let low = u16::from_le_bytes([*after.get(13)?, *after.get(14)?]);
        let high = u16::from_le_bytes([*after.get(18)?, *after.get(19)?]);
        Some(Self {
            id: u32::from_le_bytes(after.get(..4)?.try_into().ok()?),
            nonce,
            capabilities: u32::from(low) | u32::from(high) << 16,
            plugin: String::from_utf8_lossy(plugin).into_owned(),
        })
    }
}

/// What proves the password.
fn answer(plugin: &str, nonce: &[u8], password: &str, secret: bool) -> Vec<u8> {
    if password.is_empty() {
        return vec![];
    }
    match plugin {
        "caching_sha2_password" => {
            let once = Sha256::digest(password);
            let mask = Sha256::new().chain_update(Sha256::digest(once)).chain_update(nonce).finalize();
            once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
        }
        "sha256_password" if secret => [password.as_bytes(), &[0]].concat(),
        // Asks for the server's public key.
        "sha256_password" => vec![1],
        _ => {
            let once = Sha1::digest(password);
            let mask = Sha1::new().chain_update(nonce).chain_update(Sha1::digest(once)).finalize();
            once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
        }
    }
}

/// The password for the server's public key alone.
fn encrypted(key: &[u8], password: &str, nonce: &[u8]) -> io::Result<Vec<u8>> {
    let key = std::str::from_utf8(key).map_err(io::Error::other)?;
    let key = PublicKey::from_public_key_pem(key.trim()).map_err(io::Error::other)?;
    let password = [password.as_bytes(), &[0]].concat();
    let mixed: Vec<u8> = password.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
    key.encrypt(&mut rand::rng(), Oaep::<Sha1>::new(), &mixed).map_err(io::Error::other)
}

fn client_config(tls: &Tls) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    if !matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyIdentity) {
        let anybody = Arc::new(Anybody(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    // What this host trusts; a certificate there that cannot be read is not ours to judge.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(ca) = &tls.ca {
        for certificate in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
    }
    if tls.mode == TlsMode::VerifyIdentity {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(io::Error::other)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier))).with_no_client_auth())
}

/// TLS mode `required`: encrypted, to whomever.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS mode `verify_ca`: a server of that authority, whatever its name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
