//! The proxy between the agent and an endpoint, by the variables that curl and most other programs read.

use std::ffi::OsString;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::variables::read;
use super::{ConfigError, Protocol};

/// A proxy, and what it wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http` or `https`, host and port; without credentials.
    pub(in crate::export) uri: Uri,
    /// `Proxy-Authorization`; shown by no formatter.
    pub(in crate::export) authorization: Option<HeaderValue>,
    /// Requests are sent to the proxy itself, with the whole URI: plain HTTP/1.1. Everything else goes through a tunnel.
    pub(in crate::export) forwards: bool,
}

impl Proxy {
    /// The proxy for `endpoint`, if there is one and `NO_PROXY` does not except the endpoint.
    pub(super) fn for_endpoint(
        endpoint: &Uri,
        protocol: Protocol,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        let https = endpoint.scheme() == Some(&Scheme::HTTPS);
        let own = if https {
            ["HTTPS_PROXY", "https_proxy"]
        } else {
            ["HTTP_PROXY", "http_proxy"]
        };
        let first = |names: &[&str]| -> Result<_, ConfigError> {
            for name in names {
                if let Some(value) = read(&get, name)? {
                    return Ok(Some(((*name).to_owned(), value.trim().to_owned())));
                }
            }
            Ok(None)
        };
        let [upper, lower] = own;
        let Some((variable, value)) = first(&[upper, lower, "ALL_PROXY", "all_proxy"])? else {
            return Ok(None);
        };
        let except = first(&["NO_PROXY", "no_proxy"])?.map(|(_, value)| value);
        let all = Matcher::builder().all(value.clone()).build();
        let usable = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        // The matcher ignores what it cannot read; asked without exceptions it tells.
        let Some(found) = all.intercept(endpoint).filter(|found| usable(found.uri())) else {
            return Err(ConfigError::Proxy { variable });
        };
        let matcher = Matcher::builder()
            .all(value)
            .no(except.unwrap_or_default())
            .build();
        if matcher.intercept(endpoint).is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            uri: found.uri().clone(),
            authorization: found.basic_auth().cloned(),
            forwards: !https && protocol == Protocol::HttpProtobuf,
        }))
    }

    /// For messages: host and port.
    pub(in crate::export) fn target(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or("http"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(endpoint: &'static str, set: &[(&str, &str)]) -> Result<Option<Proxy>, ConfigError> {
        Proxy::for_endpoint(&Uri::from_static(endpoint), Protocol::HttpProtobuf, |variable| {
            let found = set.iter().find(|(name, _)| *name == variable);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn target(endpoint: &'static str, set: &[(&str, &str)]) -> Option<String> {
        proxy(endpoint, set).unwrap().map(|proxy| proxy.target())
    }

    #[test]
    fn the_schemes_variable_is_asked_before_the_one_for_all_and_upper_case_before_lower() {
        let set = [
            ("HTTPS_PROXY", "http://secure:1"),
            ("https_proxy", "http://lower:1"),
            ("http_proxy", "plain:2"),
            ("ALL_PROXY", "http://all:3"),
        ];
        assert_eq!(target("https://c/", &set).as_deref(), Some("http://secure:1"));
        assert_eq!(target("http://c/", &set).as_deref(), Some("http://plain:2"));
        assert_eq!(target("http://c/", &set[3..]).as_deref(), Some("http://all:3"));
        assert_eq!(target("http://c/", &set[..1]), None);
        assert_eq!(target("https://c/", &[("HTTPS_PROXY", "")]), None);
    }

    #[test]
    fn exceptions_are_names_with_what_is_below_addresses_and_networks() {
        let set = [
            ("ALL_PROXY", "http://p:1"),
            ("no_proxy", "svc.local, 10.0.0.0/8,::1"),
        ];
        for endpoint in [
            "http://a.svc.local:4318/",
            "https://svc.local/",
            "http://10.1.2.3/",
            "http://[::1]:4318/",
        ] {
            assert_eq!(target(endpoint, &set), None, "{endpoint}");
        }
        for endpoint in ["http://asvc.local/", "http://11.1.2.3/"] {
            assert!(target(endpoint, &set).is_some(), "{endpoint}");
        }
        let everything = [set[0], ("NO_PROXY", "*")];
        assert_eq!(target("http://c/", &everything), None);
    }

    #[test]
    fn credentials_go_into_the_header_and_into_no_message() {
        let set = [("HTTP_PROXY", "http://user:s3cret@p:1")];
        let found = proxy("http://c/", &set).unwrap().unwrap();
        assert_eq!(found.authorization.as_ref().unwrap(), "Basic dXNlcjpzM2NyZXQ=");
        let shown = format!("{found:?} {}", found.target());
        assert!(
            !shown.contains("s3cret") && !shown.contains("dXNlcjpzM2NyZXQ"),
            "{shown}"
        );
        for value in [
            "socks5://user:s3cret@p:1",
            "http://user:s3cret@",
            "ftp://s3cret@p",
        ] {
            let error = proxy("http://c/", &[("ALL_PROXY", value)]).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("ALL_PROXY") && !message.contains("s3cret"),
                "{message}"
            );
        }
    }
}
