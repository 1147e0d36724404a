//! Where the metadata store is, and what its members ask of those who connect: certificates, a user's password.
//!
//! Owns the reading of addresses and files, at the start, so that mistakes are told there. Does not own connections.
//!
//! Invariant: no message and no `Debug` shows a key or a password. What holds one has a `Debug` of its own ([`Secret`]), or none.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A host that does not answer a connection attempt for so long is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection with open streams is probed so often; etcd takes more than one probe in 5 s as an attack.
const PROBE_INTERVAL: Duration = Duration::from_secs(6);
/// And is lost if a probe is not answered for so long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How to be let in: flags of every command that talks to the metadata store.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Access {
    /// Certificate (PEM) of the authority that signed those of the metadata store; for https:// addresses
    #[arg(long, env = "ASHLAR_META_CA", value_name = "FILE")]
    pub meta_ca: Option<PathBuf>,
    /// Our own certificate (PEM), if the metadata store wants to see one
    #[arg(long, env = "ASHLAR_META_CERT", value_name = "FILE", requires = "meta_key")]
    pub meta_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "ASHLAR_META_KEY", value_name = "FILE", requires = "meta_cert")]
    pub meta_key: Option<PathBuf>,
    /// User of the metadata store, if it asks for one
    #[arg(long, env = "ASHLAR_META_USER", value_name = "NAME", requires = "meta_password_file")]
    pub meta_user: Option<String>,
    /// File with the user's password, on its first line
    #[arg(long, env = "ASHLAR_META_PASSWORD_FILE", value_name = "FILE", requires = "meta_user")]
    pub meta_password_file: Option<PathBuf>,
}

/// A password. Nobody sees it by printing what holds it.
#[derive(Clone)]
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who we are to the metadata store.
#[derive(Clone, Debug)]
pub(super) struct User {
    name: String,
    password: Secret,
}

impl User {
    /// For a log-in, and nothing else.
    pub(super) fn credentials(&self) -> (String, String) {
        (self.name.clone(), self.password.0.clone())
    }
}

/// Addresses of the metadata store's members, and how to be let in.
#[derive(Clone, Debug)]
pub struct Endpoints {
    members: Vec<Endpoint>,
    user: Option<User>,
}

/// An address that nobody can connect to, or a file that is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// What is no address.
    #[error(
        "'{address}' is no address of a metadata store: {reason}; expected http://HOST:PORT or https://HOST:PORT, several with commas"
    )]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// What cannot be read.
    #[error("{path} ({flag}): {reason}")]
    File {
        /// Who named it.
        flag: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate and a key that are of no use together.
    #[error(
        "{certificate} (--meta-cert) and {key} (--meta-key) are not a certificate and its key: {reason}; check that both \
         are PEM, and were made together"
    )]
    Identity {
        /// Path of the certificate.
        certificate: PathBuf,
        /// Path of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Endpoints {
    /// Reads a list such as `http://10.0.0.1:2379,http://10.0.0.2:2379`. `http://` may be left out.
    pub fn parse(list: &str) -> Result<Endpoints, EndpointError> {
        Endpoints::with_access(list, &Access::default())
    }

    /// The same, of a store that does not let everybody in.
    pub fn with_access(list: &str, access: &Access) -> Result<Endpoints, EndpointError> {
        let tls = tls(access)?;
        let member = |address: &str| parse_address(address.trim(), tls.as_ref());
        let members = list.split(',').map(member).collect::<Result<_, _>>()?;
        Ok(Endpoints { members, user: user(access)? })
    }

    pub(super) fn members(&self) -> &[Endpoint] {
        &self.members
    }

    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }
}

fn read(flag: &'static str, path: &Path) -> Result<String, EndpointError> {
    std::fs::read_to_string(path).map_err(|error| EndpointError::File {
        flag,
        path: path.into(),
        reason: error.to_string(),
    })
}

fn read_pem(flag: &'static str, path: &Path) -> Result<String, EndpointError> {
    let text = read(flag, path)?;
    if text.contains("-----BEGIN ") {
        return Ok(text);
    }
    Err(EndpointError::File { flag, path: path.into(), reason: "this is not PEM: it has no -----BEGIN line".into() })
}

fn tls(access: &Access) -> Result<Option<ClientTlsConfig>, EndpointError> {
    let Some(path) = &access.meta_ca else { return Ok(None) };
    let authority = read_pem("--meta-ca", path)?;
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let file = |reason| EndpointError::File { flag: "--meta-ca", path: path.clone(), reason };
    try_out(&config).map_err(file)?;
    let (Some(certificate), Some(key)) = (&access.meta_cert, &access.meta_key) else { return Ok(Some(config)) };
    let identity = Identity::from_pem(read_pem("--meta-cert", certificate)?, read_pem("--meta-key", key)?);
    let config = config.identity(identity);
    let (certificate, key) = (certificate.clone(), key.clone());
    try_out(&config).map_err(|reason| EndpointError::Identity { certificate, key, reason })?;
    Ok(Some(config))
}

/// Whether anybody could be connected to with this; if not, why.
fn try_out(config: &ClientTlsConfig) -> Result<(), String> {
    let somewhere = Endpoint::from_static("https://localhost:2379");
    somewhere.tls_config(config.clone()).map(drop).map_err(|error| deepest(&error))
}

/// The innermost error says most: "Connection refused" rather than "tcp connect error".
pub(super) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn user(access: &Access) -> Result<Option<User>, EndpointError> {
    let (Some(name), Some(path)) = (&access.meta_user, &access.meta_password_file) else { return Ok(None) };
    let text = read("--meta-password-file", path)?;
    let password = Secret(text.lines().next().unwrap_or_default().to_string());
    Ok(Some(User { name: name.clone(), password }))
}

fn parse_address(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, EndpointError> {
    let wrong = |reason: &str| EndpointError::Address { address: address.into(), reason: reason.into() };
    let (scheme, authority) = address.split_once("://").unwrap_or(("http", address));
    let tls = match (scheme, tls) {
        ("http", _) => None,
        ("https", None) => return Err(wrong("https needs the authority's certificate, --meta-ca FILE")),
        ("https", tls) => tls,
        _ => return Err(wrong("the scheme is neither http nor https")),
    };
    let authority = authority.trim_end_matches('/');
    let port = authority.rsplit_once(':').map(|(_, port)| port).ok_or_else(|| wrong("the port is missing"))?;
    port.parse::<u16>().map_err(|_| wrong("the port is not a number up to 65535"))?;
    let endpoint = Channel::from_shared(format!("{scheme}://{authority}"));
    let endpoint = endpoint.map_err(|error| wrong(&error.to_string()))?;
    let endpoint = match tls {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| wrong(&deepest(&error)))?,
        None => endpoint,
    };
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE_INTERVAL)
        .keep_alive_timeout(PROBE_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(Endpoints::parse("http://a:1, 127.0.0.1:2379/").expect("two").members.len(), 2);
        for (wrong, reason) in [
            ("https://a:1", "--meta-ca"),
            ("ftp://a:1", "scheme"),
            ("a", "port is missing"),
            ("a:port", "not a number"),
            ("a:70000", "not a number"),
            ("", "port is missing"),
            ("http://a b:1", "invalid"),
        ] {
            let error = Endpoints::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let access = |path: &str| Access { meta_ca: Some(path.into()), ..Access::default() };
        for (path, reason) in [("/nowhere", "/nowhere (--meta-ca): No such file"), ("/dev/null", "not PEM")] {
            let error = Endpoints::with_access("https://a:1", &access(path)).expect_err(path).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
