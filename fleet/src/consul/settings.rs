//! Where Consul is and who we are to it: an option, and the environment variables of Consul's own programs
//! (<https://developer.hashicorp.com/consul/commands#environment-variables>).

use std::fmt;
use std::path::PathBuf;

use hyper::http::uri::{Authority, Scheme};

/// Consul's own default.
const DEFAULT: &str = "127.0.0.1:8500";

/// What is wrong with them, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(super) String);

/// A token is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Token {
    None,
    Given(String),
    /// Read at each request: whoever renews it replaces the file.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Given(_) => f.write_str("given"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

impl Token {
    /// The token for a request.
    pub(super) fn read(&self) -> Result<Option<String>, SettingsError> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
                Err(error) => Err(SettingsError(format!(
                    "cannot read Consul's token from {} (CONSUL_HTTP_TOKEN_FILE): {error}",
                    path.display()
                ))),
            },
        }
    }
}

/// Where Consul is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) token: Token,
    /// PEM file of the CAs that Consul's certificate comes from.
    pub(super) ca: Option<PathBuf>,
    /// PEM files of our certificate and key towards Consul.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// The name in Consul's certificate, where it is not that of the URL.
    pub(super) server_name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) datacenter: Option<String>,
}

impl Settings {
    /// Those of an option, or else of the environment.
    ///
    /// # Errors
    /// One line that says which is wrong, and what to write.
    pub fn new(
        option: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (from, url) = match (option, set("CONSUL_HTTP_ADDR")) {
            (Some(url), _) => ("--consul", url.to_owned()),
            (None, Some(url)) => ("CONSUL_HTTP_ADDR", url),
            (None, None) => ("--consul", DEFAULT.to_owned()),
        };
        let wrong = |why: &str| {
            SettingsError(format!(
                "{from} {url}: {why}; write http://HOST:PORT or https://HOST:PORT"
            ))
        };
        let asked = set("CONSUL_HTTP_SSL").is_some_and(|it| is_true(&it));
        let (scheme, rest) = match url.split_once("://") {
            None if asked => (Scheme::HTTPS, url.as_str()),
            None => (Scheme::HTTP, url.as_str()),
            Some(("http", rest)) => (Scheme::HTTP, rest),
            Some(("https", rest)) => (Scheme::HTTPS, rest),
            Some(("unix", _)) => return Err(wrong("a Unix socket cannot be used")),
            Some(_) => return Err(wrong("no such protocol")),
        };
        let authority: Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| wrong("no host and port"))?;
        if authority.as_str().contains('@') {
            return Err(SettingsError(format!(
                "{from}: no user or password in the address; Consul takes a token (CONSUL_HTTP_TOKEN_FILE)"
            )));
        }
        if set("CONSUL_HTTP_SSL_VERIFY").is_some_and(|it| !is_true(&it)) {
            return Err(SettingsError(
                "CONSUL_HTTP_SSL_VERIFY: Consul's certificate is always verified; name its CA with CONSUL_CACERT"
                    .to_owned(),
            ));
        }
        let ca = set("CONSUL_CACERT").map(PathBuf::from);
        if scheme == Scheme::HTTPS && ca.is_none() {
            return Err(SettingsError(format!(
                "{from} {url}: name the CA of Consul's certificate with CONSUL_CACERT (on Debian \
                 /etc/ssl/certs/ca-certificates.crt has the public ones)"
            )));
        }
        let identity = match (set("CONSUL_CLIENT_CERT"), set("CONSUL_CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => {
                return Err(SettingsError(
                    "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY belong together: set both or neither"
                        .to_owned(),
                ));
            }
        };
        // As Consul's own client has it: the file wins.
        let token = match (set("CONSUL_HTTP_TOKEN_FILE"), set("CONSUL_HTTP_TOKEN")) {
            (Some(file), _) => Token::File(file.into()),
            (None, Some(token)) => Token::Given(token),
            (None, None) => Token::None,
        };
        Ok(Self {
            scheme,
            authority,
            token,
            ca,
            identity,
            server_name: set("CONSUL_TLS_SERVER_NAME"),
            namespace: set("CONSUL_NAMESPACE"),
            datacenter: set("CONSUL_DATACENTER"),
        })
    }

    /// The files that are read while a daemon runs.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.token {
            Token::File(path) => vec![path.clone()],
            Token::None | Token::Given(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// As Go's `strconv.ParseBool`, which Consul's own client uses.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        option: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Settings, SettingsError> {
        Settings::new(option, &|name| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_option_wins_over_the_environment_and_that_over_the_default() {
        let shown = |option, environment: &[_]| settings(option, environment).unwrap().to_string();
        let env = [("CONSUL_HTTP_ADDR", "consul.example:8501")];
        assert_eq!(shown(None, &[]), "http://127.0.0.1:8500");
        assert_eq!(shown(None, &env), "http://consul.example:8501");
        assert_eq!(
            shown(Some("http://198.18.0.9:8500/"), &env),
            "http://198.18.0.9:8500"
        );
        let tls = [
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_CACERT", "/ca.pem"),
            env[0],
        ];
        assert_eq!(shown(None, &tls), "https://consul.example:8501");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_write() {
        type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 8] = [
            (Some("unix:///run/consul.sock"), &[], "Unix socket"),
            (Some("ftp://h"), &[], "no such protocol"),
            (Some("http://"), &[], "no host and port"),
            (Some("http://u:p@h"), &[], "no user or password"),
            (Some("https://h:8501"), &[], "CONSUL_CACERT"),
            (
                None,
                &[("CONSUL_HTTP_SSL_VERIFY", "false")],
                "always verified",
            ),
            (None, &[("CONSUL_CLIENT_CERT", "/c")], "belong together"),
            (None, &[("CONSUL_HTTP_ADDR", "a b")], "CONSUL_HTTP_ADDR a b"),
        ];
        for (option, environment, words) in cases {
            let error = settings(option, environment).unwrap_err().to_string();
            assert!(error.contains(words), "{option:?} {environment:?}: {error}");
            assert!(!error.contains("u:p"), "a password is shown: {error}");
        }
    }

    #[test]
    fn a_token_is_never_shown_and_its_file_is_read_anew() {
        let given = settings(None, &[("CONSUL_HTTP_TOKEN", "s3cret")]).unwrap();
        assert!(!format!("{given:?} {given}").contains("s3cret"));
        let path = std::env::temp_dir().join(format!("millrace-token-{}", std::process::id()));
        std::fs::write(&path, "first\n").unwrap();
        let named = path.to_str().unwrap();
        let both = [
            ("CONSUL_HTTP_TOKEN_FILE", named),
            ("CONSUL_HTTP_TOKEN", "other"),
        ];
        let file = settings(None, &both).unwrap();
        assert_eq!(file.token.read().unwrap().unwrap(), "first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(file.token.read().unwrap().unwrap(), "second");
        std::fs::remove_file(&path).unwrap();
        let error = file.token.read().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
