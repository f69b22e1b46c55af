//! Mail by SMTP: one connection and one message per recipient, everything bounded in time.

use super::{deliveries::Outcome, message::Message};
use crate::{
    config::mail::{Encryption, Smtp},
    job::Context,
};
use lettre::{
    Message as Mail,
    address::AddressError,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::ExposeSecret;
use std::time::Duration;

/// Longest wait for the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one mail, so that a server that hangs does not hold a worker's slot.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What kept a mail from being taken by the server.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum MailError {
    #[error("`{text}` is not a mail address: {source}")]
    Address { text: String, source: AddressError },
    #[error("the mail cannot be built: {0}")]
    Build(#[from] lettre::error::Error),
    #[error("cannot reach the mail server {server}: {source}")]
    Connect { server: String, source: Error },
    #[error("the mail server {server} offers no STARTTLS, which MAIL_SCHEME or MAIL_ENCRYPTION or the account's password asks for")]
    NoStartTls { server: String },
    #[error("cannot encrypt the connection to the mail server {server}: {source}")]
    Encrypt { server: String, source: Error },
    #[error("the mail server {server} does not let the account `{user}` in: {source}")]
    LogIn { server: String, user: String, source: Error },
    #[error("the mail server {server} does not take mail for {to}: {source}")]
    Send { server: String, to: String, source: Error },
    #[error("the mail server {server} did not answer within {} s", TIMEOUT.as_secs())]
    Timeout { server: String },
}

impl MailError {
    /// Whether another attempt would meet it again. A login is not: its password may be put right meanwhile.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Build(_) => true,
            Self::Send { source, .. } => source.is_permanent(),
            Self::Connect { .. } | Self::NoStartTls { .. } | Self::Encrypt { .. } | Self::LogIn { .. } | Self::Timeout { .. } => false,
        }
    }

    /// The next step.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Address { .. } => "correct the setting backup_notification_email",
            Self::Connect { .. } | Self::Timeout { .. } => "check MAIL_HOST and MAIL_PORT, and that this host may connect to them",
            Self::NoStartTls { .. } => "set MAIL_SCHEME=smtps if the server speaks TLS from the first byte on another port (465)",
            Self::Encrypt { .. } => {
                "check MAIL_SCHEME and MAIL_PORT, and that this host trusts the certificate (SSL_CERT_FILE names more authorities)"
            }
            Self::LogIn { .. } => "check MAIL_USERNAME and MAIL_PASSWORD",
            Self::Send { source, .. } if source.is_permanent() => "correct the setting backup_notification_email, or MAIL_FROM_ADDRESS",
            Self::Build(_) | Self::Send { .. } => return None,
        })
    }
}

/// To whom: the setting, which may name several with commas between, else `MAIL_FROM_ADDRESS`, else nobody.
pub fn recipients(setting: Option<&str>, smtp: &Smtp) -> Vec<String> {
    let to = setting.or(smtp.from_address.as_deref()).unwrap_or_default();
    let mut all: Vec<String> = to.split([',', ';']).map(|t| t.trim().chars().take(255).collect()).collect();
    all.retain(|t: &String| !t.is_empty());
    all.dedup();
    all
}

/// Sends the message to one recipient.
pub async fn deliver(smtp: &Smtp, to: &str, message: &Message, context: &Context) -> Outcome {
    let sent = async {
        let mail = build(smtp, to, message, context)?;
        let server = server(smtp);
        let mut connection = connect(smtp).await?;
        let taken = connection.send(mail.envelope(), &mail.formatted()).await.map_err(|source| MailError::Send {
            server,
            to: to.into(),
            source,
        })?;
        Ok((connection, taken))
    };
    match tokio::time::timeout(TIMEOUT, sent).await.unwrap_or_else(|_| Err(MailError::Timeout { server: server(smtp) })) {
        Ok((mut connection, taken)) => {
            // Taken is taken: a goodbye that goes wrong must not make it a failure.
            drop(tokio::time::timeout(Duration::from_secs(2), connection.quit()).await);
            Outcome::Delivered(format!("{} {}", taken.code(), taken.message().collect::<Vec<_>>().join(" ")))
        }
        Err(error) => {
            let text = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}. Next: {hint}"));
            if error.is_permanent() { Outcome::Refused(text) } else { Outcome::Failed(text) }
        }
    }
}

/// Connects, encrypts and logs in, and sends nothing: whether mail could leave.
pub async fn probe(smtp: &Smtp) -> Result<(), MailError> {
    let tried = async {
        connect(smtp).await?.abort().await;
        Ok(())
    };
    tokio::time::timeout(TIMEOUT, tried).await.unwrap_or_else(|_| Err(MailError::Timeout { server: server(smtp) }))
}

fn server(smtp: &Smtp) -> String {
    format!("{}:{}", smtp.host, smtp.port)
}

async fn connect(smtp: &Smtp) -> Result<AsyncSmtpConnection, MailError> {
    let server = server(smtp);
    let hello = ClientId::Domain(smtp.hello.clone());
    let implicit = smtp.encryption == Encryption::Implicit;
    let first = if implicit { Some(tls(smtp).await?) } else { None };
    let connected = AsyncSmtpConnection::connect_tokio1((smtp.host.as_str(), smtp.port), Some(CONNECT_TIMEOUT), &hello, first, None).await;
    let mut connection = connected.map_err(|source| match source.is_tls() {
        true => MailError::Encrypt { server: server.clone(), source },
        false => MailError::Connect { server: server.clone(), source },
    })?;
    if !implicit && connection.can_starttls() {
        let parameters = tls(smtp).await?;
        connection.starttls(parameters, &hello).await.map_err(|source| MailError::Encrypt { server: server.clone(), source })?;
    } else if smtp.encryption == Encryption::StartTls {
        return Err(MailError::NoStartTls { server });
    }
    if let Some((user, password)) = &smtp.credentials {
        let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
        let let_in = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
        let_in.map_err(|source| MailError::LogIn { server, user: user.clone(), source })?;
    }
    Ok(connection)
}

/// The host's own authorities, read from their files.
async fn tls(smtp: &Smtp) -> Result<TlsParameters, MailError> {
    let builder = TlsParameters::builder(smtp.host.clone());
    let any = smtp.encryption == Encryption::Opportunistic;
    let built =
        tokio::task::spawn_blocking(move || builder.dangerous_accept_invalid_certs(any).dangerous_accept_invalid_hostnames(any).build())
            .await;
    match built {
        Ok(built) => built.map_err(|source| MailError::Encrypt { server: server(smtp), source }),
        Err(_) => Err(MailError::Timeout { server: server(smtp) }),
    }
}

fn build(smtp: &Smtp, to: &str, message: &Message, context: &Context) -> Result<Mail, MailError> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|source| MailError::Address { text: text.into(), source });
    let to = mailbox(to)?;
    let from = match &smtp.from_address {
        Some(from) => mailbox(from)?.email,
        None => to.email.clone(),
    };
    // The same on every attempt: a mail that was taken but not noted, and so is sent again, can be told as the same one.
    let (about, id) = message.about;
    let message_id = format!("<{about}.{id}.{}.{}@{}>", context.job_id, message.at.timestamp_micros(), context.config.node);
    Ok(Mail::builder()
        .from(Mailbox::new(Some(smtp.from_name.clone()), from))
        .to(to)
        .subject(message.subject.clone())
        .message_id(Some(message_id))
        .date_now()
        // Keeps out-of-office answers away (RFC 3834).
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()))
        .multipart(MultiPart::alternative_plain_html(message.text(), message.html()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Env,
        mail::MailConfig::{Off, Smtp},
    };

    #[test]
    fn recipients_come_from_the_setting_then_from_the_sender() {
        let smtp = |pairs: &[(&str, &str)]| {
            let env = Env::from_pairs(pairs.iter().copied().chain([
                ("MAIL_HOST", "h"),
                ("BACKUP_DATABASE_URL", "mysql://a@h/c"),
                ("HERATIO_DATABASE_URL", "mysql://a@h/d"),
            ]));
            match crate::config::Config::from_env(&env).unwrap().mail {
                Smtp(smtp) => *smtp,
                Off(why) => panic!("{why}"),
            }
        };
        let with_sender = smtp(&[("MAIL_FROM_ADDRESS", "from@example.org")]);
        assert_eq!(recipients(None, &with_sender), ["from@example.org"]);
        assert_eq!(recipients(Some("a@example.org, b@example.org;"), &with_sender), ["a@example.org", "b@example.org"]);
        assert_eq!(recipients(None, &smtp(&[])), Vec::<String>::new());
    }
}
