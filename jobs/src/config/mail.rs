//! Mail, by Laravel's variables as old and new versions of it mean them. `null` is unset, as in Laravel.
//!
//! | variable | meaning |
//! |---|---|
//! | `MAIL_MAILER` | `smtp` (default when `MAIL_HOST` is set); anything else, `log` and `array` among it, turns mail off |
//! | `MAIL_HOST`, `MAIL_PORT` | the server (default port 465 for implicit TLS, else 587) |
//! | `MAIL_USERNAME`, `MAIL_PASSWORD` | its account, if it wants one; `MAIL_PASSWORD_FILE` names a file with the password |
//! | `MAIL_SCHEME`, else `MAIL_ENCRYPTION` | `smtps` or `ssl`: TLS from the first byte. `tls` or `starttls`: STARTTLS required (`tls` on port 465: from the first byte). `smtp` or unset: STARTTLS where offered, and required before a password leaves this host |
//! | `MAIL_FROM_ADDRESS`, `MAIL_FROM_NAME` | sender (default: the recipient's own address, and `APP_NAME`) |
//! | `MAIL_EHLO_DOMAIN` | this host's name in the greeting (default: the host of `APP_URL`, else the node) |

use super::{ConfigError, Env, invalid};
use secrecy::SecretString;

/// How mail leaves, or why it does not.
#[derive(Debug, Clone)]
pub enum MailConfig {
    /// No mail; why, for people.
    Off(String),
    /// By SMTP.
    Smtp(Box<Smtp>),
}

/// A mail server and how to talk to it.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name; certificates are checked against it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether and how the connection is encrypted.
    pub encryption: Encryption,
    /// Its account.
    pub credentials: Option<(String, SecretString)>,
    /// `MAIL_FROM_ADDRESS`.
    pub from_address: Option<String>,
    /// `MAIL_FROM_NAME`.
    pub from_name: String,
    /// How this host greets.
    pub hello: String,
}

/// How a connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first byte.
    Implicit,
    /// By STARTTLS, or not at all.
    StartTls,
    /// By STARTTLS where the server offers it, whatever its certificate: without it the mail would go out in the clear.
    Opportunistic,
}

impl MailConfig {
    pub(super) fn from_env(env: &Env, node: &str) -> Result<Self, ConfigError> {
        let mailer = value(env, "MAIL_MAILER").or_else(|| value(env, "MAIL_DRIVER"));
        let host = value(env, "MAIL_HOST");
        let host = match (mailer, host) {
            (None | Some("smtp"), Some(host)) => host.to_owned(),
            (None | Some("smtp"), None) => return Ok(Self::Off("MAIL_HOST is unset: it names the mail server".into())),
            (Some(other), _) => {
                return Ok(Self::Off(format!("MAIL_MAILER is `{other}`: mail leaves by SMTP only, so set it to `smtp`, and MAIL_HOST")));
            }
        };
        let credentials = match (value(env, "MAIL_USERNAME"), env.secret("MAIL_PASSWORD")?.filter(|p| !is_null(p))) {
            (Some(user), Some(password)) => Some((user.to_owned(), SecretString::from(password))),
            _ => None,
        };
        let port = value(env, "MAIL_PORT")
            .map(|text| {
                text.parse().ok().filter(|p| *p > 0).ok_or_else(|| invalid("MAIL_PORT", format!("`{text}` is not a port's number")))
            })
            .transpose()?;
        let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        let encryption = encryption(env, port, credentials.is_some() && !local)?;
        let app_host = env.get("APP_URL").and_then(|u| Some(url::Url::parse(u).ok()?.host_str()?.to_owned()));
        Ok(Self::Smtp(Box::new(Smtp {
            host,
            port: port.unwrap_or(if encryption == Encryption::Implicit { 465 } else { 587 }),
            encryption,
            credentials,
            from_address: value(env, "MAIL_FROM_ADDRESS").map(address).transpose()?,
            from_name: value(env, "MAIL_FROM_NAME").or_else(|| value(env, "APP_NAME")).unwrap_or("Heratio").to_owned(),
            hello: value(env, "MAIL_EHLO_DOMAIN").map(str::to_owned).or(app_host).unwrap_or_else(|| node.to_owned()),
        })))
    }
}

fn encryption(env: &Env, port: Option<u16>, secret: bool) -> Result<Encryption, ConfigError> {
    let (variable, word) = match (value(env, "MAIL_SCHEME"), value(env, "MAIL_ENCRYPTION")) {
        (Some(word), _) => ("MAIL_SCHEME", word),
        (None, Some(word)) => ("MAIL_ENCRYPTION", word),
        (None, None) => ("MAIL_SCHEME", "smtp"),
    };
    Ok(match word.to_ascii_lowercase().as_str() {
        "tls" | "smtp" if port == Some(465) => Encryption::Implicit,
        // Laravel 9 and later look at the port alone; no server speaks implicit TLS on this one.
        "ssl" if port == Some(587) => Encryption::StartTls,
        "ssl" | "smtps" => Encryption::Implicit,
        "tls" | "starttls" => Encryption::StartTls,
        "smtp" if secret => Encryption::StartTls,
        "smtp" => Encryption::Opportunistic,
        _ => return Err(invalid(variable, format!("`{word}` is none of smtp, smtps, tls, starttls, ssl, null"))),
    })
}

fn address(text: &str) -> Result<String, ConfigError> {
    match text.parse::<lettre::Address>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(invalid("MAIL_FROM_ADDRESS", format!("`{text}` is not a mail address"))),
    }
}

/// A variable as Laravel's `env()` reads it.
fn value<'e>(env: &'e Env, name: &str) -> Option<&'e str> {
    env.get(name).map(str::trim).filter(|v| !is_null(v))
}

fn is_null(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "" | "null" | "(null)" | "empty" | "(empty)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<MailConfig, ConfigError> {
        MailConfig::from_env(&Env::from_pairs(pairs.iter().copied()), "node1")
    }

    fn smtp(pairs: &[(&str, &str)]) -> Smtp {
        match read(&[&[("MAIL_HOST", "mail.example")], pairs].concat()).unwrap() {
            MailConfig::Smtp(smtp) => *smtp,
            MailConfig::Off(why) => panic!("{why}"),
        }
    }

    #[test]
    fn encryption_as_laravel_means_it() {
        let account = [("MAIL_USERNAME", "u"), ("MAIL_PASSWORD", "p")];
        for (pairs, expected) in [
            (&[] as &[_], (Encryption::Opportunistic, 587)),
            (&[("MAIL_ENCRYPTION", "null"), ("MAIL_PORT", "2525")], (Encryption::Opportunistic, 2525)),
            (&[("MAIL_SCHEME", "null"), ("MAIL_PORT", "465")], (Encryption::Implicit, 465)),
            (&[("MAIL_ENCRYPTION", "tls")], (Encryption::StartTls, 587)),
            (&[("MAIL_ENCRYPTION", "TLS"), ("MAIL_PORT", "465")], (Encryption::Implicit, 465)),
            (&[("MAIL_ENCRYPTION", "ssl")], (Encryption::Implicit, 465)),
            (&[("MAIL_ENCRYPTION", "ssl"), ("MAIL_PORT", "587")], (Encryption::StartTls, 587)),
            (&[("MAIL_SCHEME", "smtps"), ("MAIL_ENCRYPTION", "tls")], (Encryption::Implicit, 465)),
            (&[("MAIL_SCHEME", "smtp"), account[0], account[1]], (Encryption::StartTls, 587)),
            (&[("MAIL_HOST", "127.0.0.1"), account[0], account[1]], (Encryption::Opportunistic, 587)),
        ] {
            let smtp = smtp(pairs);
            assert_eq!((smtp.encryption, smtp.port), expected, "{pairs:?}");
        }
    }

    #[test]
    fn off_says_why_and_what_is_wrong_is_named() {
        for (pairs, word) in [
            (&[] as &[_], "MAIL_HOST"),
            (&[("MAIL_MAILER", "log"), ("MAIL_HOST", "h")], "`log`"),
            (&[("MAIL_MAILER", "sendmail"), ("MAIL_HOST", "h")], "`sendmail`"),
        ] {
            match read(pairs).unwrap() {
                MailConfig::Off(why) => assert!(why.contains(word), "{why}"),
                MailConfig::Smtp(_) => panic!("{pairs:?}"),
            }
        }
        for (name, text) in [("MAIL_PORT", "smtp"), ("MAIL_SCHEME", "imap"), ("MAIL_FROM_ADDRESS", "nobody")] {
            let error = read(&[("MAIL_HOST", "h"), (name, text)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn names_and_the_password() {
        let smtp = smtp(&[
            ("APP_URL", "https://heratio.example/x"),
            ("MAIL_USERNAME", "u"),
            ("MAIL_PASSWORD", "hunter2"),
            ("APP_NAME", "Archive"),
        ]);
        assert_eq!((smtp.hello.as_str(), smtp.from_name.as_str()), ("heratio.example", "Archive"));
        assert!(smtp.credentials.is_some() && !format!("{smtp:?}").contains("hunter2"));
        let plain = self::smtp(&[("MAIL_USERNAME", "null"), ("MAIL_PASSWORD", "null")]);
        assert!(plain.credentials.is_none());
        assert_eq!(plain.hello, "node1");
    }
}
