//! Option files for the client tools, in memory: connection parameters and password touch neither argv nor disk.
//!
//! Both flavours' tools read the same format. A value in double quotes may hold anything: `\\`, `\"`, `\n`,
//! `\r` and `\t` are the escapes needed (tried on both with 34 passwords of quotes, backslashes, `#`, leading and
//! trailing spaces, line breaks and emoji). They ignore a file that others may write, hence its mode 0600.

use crate::{
    process::{Command, memory_file},
    server::{Flavour, ServerConfig, TlsMode},
};
use secrecy::ExposeSecret;
use std::io;

/// The text of an option file. Has no `Debug`, since it holds the password.
pub struct OptionFile(String);

impl OptionFile {
    /// The group `[client]`, which all tools read: where the server is, and who we are to it.
    pub fn client(config: &ServerConfig, flavour: Flavour) -> Self {
        let mut file = Self("[client]\n".to_owned()).set("user", &config.user);
        if let Some(password) = &config.password {
            file = file.set("password", password.expose_secret());
        }
        match &config.socket {
            Some(socket) => file.set("protocol", "socket").set("socket", &socket.to_string_lossy()),
            // Without the protocol, the tools take "localhost" for a socket.
            None => file.set("protocol", "tcp").set("host", &config.host).set("port", &config.port.to_string()).tls(config, flavour),
        }
    }

    /// Starts a group: `mysqldump` is read by mysqldump and mariadb-dump alone.
    pub fn group(self, name: &str) -> Self {
        self.push(&format!("[{name}]\n"))
    }

    /// Sets an option. With the prefix `loose-` a tool that does not know it warns instead of failing.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.push(&format!("{name}={}\n", quote(value)))
    }

    /// Sets an option that takes no value.
    pub fn flag(self, name: &str) -> Self {
        self.push(&format!("{name}\n"))
    }

    /// Makes `command` read this file and no other. Call it before adding arguments: the option must come first.
    pub fn apply(self, mut command: Command) -> io::Result<Command> {
        let path = command.inherit(memory_file("options", self.0.as_bytes())?);
        Ok(command.arg(format!("--defaults-file={path}")))
    }

    fn tls(self, config: &ServerConfig, flavour: Flavour) -> Self {
        let with_ca = match &config.tls.ca {
            Some(ca) => self.set("ssl-ca", &ca.to_string_lossy()),
            None => self,
        };
        match (flavour, config.tls.mode) {
            // Without TLS the password is sent encrypted by the server's RSA key, which must be fetched; sqlx does the same.
            (Flavour::MySql, TlsMode::Disabled) => with_ca.set("ssl-mode", "DISABLED").flag("loose-get-server-public-key"),
            (Flavour::MySql, TlsMode::Preferred) => with_ca.set("ssl-mode", "PREFERRED").flag("loose-get-server-public-key"),
            (Flavour::MySql, TlsMode::Required) => with_ca.set("ssl-mode", "REQUIRED"),
            (Flavour::MySql, TlsMode::VerifyCa) => with_ca.set("ssl-mode", "VERIFY_CA"),
            (Flavour::MySql, TlsMode::VerifyIdentity) => with_ca.set("ssl-mode", "VERIFY_IDENTITY"),
            (Flavour::MariaDb, TlsMode::Disabled) => with_ca.flag("skip-ssl"),
            // MariaDB's tools cannot demand encryption without verifying; from 11.4 on they verify unless told not to.
            (Flavour::MariaDb, TlsMode::Preferred | TlsMode::Required) => with_ca.flag("ssl").flag("skip-ssl-verify-server-cert"),
            (Flavour::MariaDb, TlsMode::VerifyCa | TlsMode::VerifyIdentity) => with_ca.flag("ssl-verify-server-cert"),
        }
    }

    fn push(mut self, text: &str) -> Self {
        self.0.push_str(text);
        self
    }
}

/// Quotes a value; see the module's text.
fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(2 * value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Tls;
    use std::io::Read;

    fn config() -> ServerConfig {
        ServerConfig {
            host: "db1".to_owned(),
            port: 3307,
            socket: None,
            user: "back up".to_owned(),
            password: Some("a\"b\\c #'\n ".into()),
            schema: "heratio".to_owned(),
            tls: Tls { mode: TlsMode::VerifyCa, ca: Some("/etc/ca.pem".into()) },
        }
    }

    #[test]
    fn values_are_quoted() {
        let file = OptionFile::client(&config(), Flavour::MySql).group("mysqldump").set("loose-x", "1").flag("quick");
        assert_eq!(
            file.0,
            "[client]\nuser=\"back up\"\npassword=\"a\\\"b\\\\c #'\\n \"\nprotocol=\"tcp\"\nhost=\"db1\"\nport=\"3307\"\n\
             ssl-ca=\"/etc/ca.pem\"\nssl-mode=\"VERIFY_CA\"\n[mysqldump]\nloose-x=\"1\"\nquick\n"
        );
    }

    #[test]
    fn a_socket_needs_no_tls() {
        let file = OptionFile::client(&ServerConfig { socket: Some("/run/s".into()), password: None, ..config() }, Flavour::MariaDb);
        assert_eq!(file.0, "[client]\nuser=\"back up\"\nprotocol=\"socket\"\nsocket=\"/run/s\"\n");
    }

    #[tokio::test]
    async fn the_password_is_in_neither_argv_nor_environment() {
        let script = "cat ${1#--defaults-file=}; cat /proc/$$/cmdline /proc/$$/environ >&2";
        let command = Command::new("/bin/sh").arg("-c").arg(script).arg("sh");
        let mut command = OptionFile::client(&config(), Flavour::MariaDb).apply(command).unwrap();
        let mut stdout = command.pipe_stdout().unwrap();
        let mut child = command.spawn().await.unwrap();
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        let exit = child.wait().await.unwrap();
        assert!(text.contains("password=\"a\\\"b"), "{text}");
        assert!(exit.stderr.contains("--defaults-file=/dev/fd/") && !exit.stderr.contains("a\"b"), "{}", exit.stderr);
    }
}
