//! Checking who attaches.

use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{Hello, Refused};
use millrace_proto::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};

use crate::tls::Identity;
use crate::upkeep::check_name;

/// Most links of one copier.
const MAX_LINKS: u32 = 64;

/// The version that both sides speak, or why the stream is refused.
pub(super) fn check(hello: &Hello, identity: Option<&Identity>) -> Result<u32, Refused> {
    if hello.protocol_version < OLDEST_PROTOCOL_VERSION {
        return Err(refused(
            Code::Version,
            format!(
                "the copier speaks protocol version {}, this interceptor \
                 {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}: upgrade the copier",
                hello.protocol_version
            ),
        ));
    }
    check_name(&hello.copier_id, "the copier", identity).map_err(malformed)?;
    if hello.links == 0 || hello.links > MAX_LINKS || hello.link >= hello.links {
        return Err(malformed(format!(
            "link {} of {}: there must be 1 to {MAX_LINKS} links",
            hello.link, hello.links
        )));
    }
    Ok(hello.protocol_version.min(PROTOCOL_VERSION))
}

pub(super) fn malformed(reason: impl Into<String>) -> Refused {
    refused(Code::Malformed, reason)
}

pub(super) fn refused(code: Code, reason: impl Into<String>) -> Refused {
    Refused {
        code: code.into(),
        reason: reason.into(),
        owner: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            copier_id: "live-1".to_owned(),
            incarnation: 1,
            started_at_ms: 1,
            link: 0,
            links: 1,
            claims: false,
        }
    }

    #[test]
    fn a_newer_copier_is_spoken_to_in_our_version() {
        assert_eq!(check(&hello(), None), Ok(PROTOCOL_VERSION));
        let newer = Hello {
            protocol_version: PROTOCOL_VERSION + 3,
            ..hello()
        };
        assert_eq!(check(&newer, None), Ok(PROTOCOL_VERSION));
        let none = Hello {
            protocol_version: 0,
            ..hello()
        };
        assert_eq!(
            check(&none, None).map_err(|it| it.code()),
            Err(Code::Version)
        );
    }

    #[test]
    fn a_certificate_with_a_name_binds_the_copiers_name() {
        let identity: Identity = "spiffe://example.test/millrace/copier/live-1"
            .parse()
            .unwrap();
        assert_eq!(check(&hello(), Some(&identity)), Ok(PROTOCOL_VERSION));
        let other = Hello {
            copier_id: "live-2".to_owned(),
            ..hello()
        };
        let refused = check(&other, Some(&identity)).unwrap_err();
        assert_eq!(refused.code(), Code::Malformed);
        assert!(refused.reason.contains("may not call itself 'live-2'"));
    }

    #[test]
    fn names_and_link_numbers_are_checked() {
        for bad in [
            Hello {
                copier_id: String::new(),
                ..hello()
            },
            Hello {
                copier_id: "x".repeat(129),
                ..hello()
            },
            Hello {
                copier_id: "a\nb".to_owned(),
                ..hello()
            },
            Hello {
                links: 0,
                ..hello()
            },
            Hello {
                links: 65,
                ..hello()
            },
            Hello {
                link: 2,
                links: 2,
                ..hello()
            },
        ] {
            assert_eq!(
                check(&bad, None).map_err(|it| it.code()),
                Err(Code::Malformed),
                "{bad:?}"
            );
        }
    }
}
